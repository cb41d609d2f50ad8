package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dubbo.apache.org/dubbo-go/v3/common/constant"
	"dubbo.apache.org/dubbo-go/v3/config"
)

// stub is some of the Java interface peers.api.Catalogue, filled in by dubbo-go.
type stub struct {
	Hello       func(ctx context.Context, who string) (string, error)               `dubbo:"hello"`
	Text        func(ctx context.Context, text string) (string, error)              `dubbo:"text"`
	Bytes       func(ctx context.Context, data []byte) ([]byte, error)              `dubbo:"bytes"`
	Same        func(ctx context.Context, item *Item) (*Item, error)                `dubbo:"same"`
	Grow        func(ctx context.Context, size int32) ([]byte, error)               `dubbo:"grow"`
	Measure     func(ctx context.Context, data []byte) (int32, error)               `dubbo:"measure"`
	Fail        func(ctx context.Context, how string) (string, error)               `dubbo:"fail"`
	Note        func(ctx context.Context, key string) (any, error)                  `dubbo:"note"`
	Noted       func(ctx context.Context, key string, atLeast int32) (int32, error) `dubbo:"noted"`
	Attachments func(ctx context.Context, prefix string) (string, error)            `dubbo:"attachments"`
}

// Reference is the interface.
func (*stub) Reference() string { return catalogue }

var remote = &stub{}

type session struct {
	id      string
	options map[string]string
}

func (s *session) line(name string, result string) {
	fmt.Printf("%s\t%s\t%s\n", s.id, name, strings.ReplaceAll(result, "\n", " "))
}

// show prints what came back, or what went wrong.
func (s *session) show(name string, result any, err error) {
	if err != nil {
		text := err.Error()
		if at := strings.Index(text, "java exception:"); at >= 0 {
			text = text[at:]
		}
		s.line(name, "threw "+strconv.QuoteToASCII(first(text, 120)))
		return
	}
	switch value := result.(type) {
	case []byte:
		s.line(name, fmt.Sprintf("%d bytes %x", len(value), sha256.Sum256(value)))
	case string:
		if len(value) > 400 {
			s.line(name, fmt.Sprintf("text of %d bytes %x", len(value), sha256.Sum256([]byte(value))))
		} else {
			s.line(name, strconv.QuoteToASCII(value))
		}
	case *Item:
		s.line(name, dump(value, map[*Item]int{}))
	default:
		s.line(name, fmt.Sprintf("%v", result))
	}
}

func first(text string, most int) string {
	if len(text) > most {
		return text[:most]
	}
	return text
}

func dump(item *Item, seen map[*Item]int) string {
	if item == nil {
		return "nil"
	}
	if number, ok := seen[item]; ok {
		return fmt.Sprintf("#%d", number)
	}
	seen[item] = len(seen)
	text := fmt.Sprintf("Item(%q %d", item.Name, item.Count)
	if item.Colour != nil {
		text += " " + item.Colour.String()
	}
	if item.Maker != nil {
		text += fmt.Sprintf(" %q %d", item.Maker.Name, item.Maker.Founded)
	}
	text += " next " + dump(item.Next, seen)
	for _, part := range item.Parts {
		text += " part " + dump(part, seen)
	}
	return text + ")"
}

func cycle() *Item {
	red, green := Colour(0), Colour(1)
	one := &Item{Name: "first \u4e2d\U0001f600", Count: -70000, Colour: &red, Maker: &Maker{Name: "maker", Founded: 1 << 62}}
	two := &Item{Name: "second", Count: 1, Colour: &green, Next: one}
	one.Next = two
	one.Parts = []*Item{two, one}
	return one
}

func (s *session) run(scenario string) {
	ctx := context.Background()
	switch scenario {
	case "calls":
		s.calls(ctx)
	case "concurrent":
		var group sync.WaitGroup
		var good atomic.Int32
		for n := range 16 {
			group.Add(1)
			go func() {
				defer group.Done()
				for k := range 50 {
					said := fmt.Sprintf("%d-%d", n, k)
					if answer, err := remote.Text(ctx, said); err == nil && answer == said {
						good.Add(1)
					}
				}
			}()
		}
		group.Wait()
		s.show("concurrent", good.Load(), nil)
	case "idle":
		answer, err := remote.Hello(ctx, "idle")
		s.show("before", answer, err)
		millis, _ := strconv.Atoi(s.options["idle"])
		time.Sleep(time.Duration(millis) * time.Millisecond)
		answer, err = remote.Hello(ctx, "idle")
		s.show("after", answer, err)
	}
}

func (s *session) calls(ctx context.Context) {
	for _, text := range []string{"a\U0001f600\u4e2d", "", strings.Repeat("\U0001f600x", 40_000)} {
		answer, err := remote.Text(ctx, text)
		s.show("text", answer, err)
	}
	answer, err := remote.Hello(ctx, "world")
	s.show("hello", answer, err)
	data, err := remote.Bytes(ctx, []byte(strings.Repeat("abc", 30_000)))
	s.show("bytes", data, err)
	for _, item := range []*Item{{Name: "one", Count: 1}, cycle()} {
		same, err := remote.Same(ctx, item)
		s.show("item", same, err)
	}
	for _, how := range []string{"none", "declared", "runtime"} {
		answer, err = remote.Fail(ctx, how)
		s.show("fail "+how, answer, err)
	}
	number, err := remote.Measure(ctx, make([]byte, 7_900*1024))
	s.show("big there", number, err)
	data, err = remote.Grow(ctx, 1<<20)
	s.show("big back", data, err)
	key := strconv.FormatInt(time.Now().UnixNano(), 10)
	for range 20 {
		if _, err = remote.Note(ctx, key); err != nil {
			s.show("note", nil, err)
		}
	}
	number, err = remote.Noted(ctx, key, 20)
	s.show("noted", number, err)
	with := context.WithValue(ctx, constant.AttachmentKey, map[string]any{"my.key": "\u4e2d", "my.other": "v"})
	answer, err = remote.Attachments(with, "my.")
	s.show("attachments", answer, err)
}

func consume(url string) {
	config.SetConsumerService(remote)
	reference := config.NewReferenceConfigBuilder().SetInterface(catalogue).SetProtocol("dubbo").SetURL(url).SetRequestTimeout("20s").Build()
	reference.Retries = "0"
	fatal(config.Load(config.WithRootConfig(settings().
		SetConsumer(config.NewConsumerConfigBuilder().SetCheck(false).AddReference(catalogue, reference).Build()).
		AddProtocol("dubbo", protocol("0")).
		Build())))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		s := &session{id: words[0], options: map[string]string{}}
		for _, word := range words[2:] {
			name, value, _ := strings.Cut(word, "=")
			s.options[name] = value
		}
		for _, scenario := range strings.Split(words[1], ",") {
			s.run(scenario)
		}
		s.line("done", "")
	}
}
