package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"dubbo.apache.org/dubbo-go/v3/common/constant"
	"dubbo.apache.org/dubbo-go/v3/config"
)

// Catalogue is some of the Java interface peers.api.Catalogue.
type Catalogue struct {
	name  string
	mutex sync.Mutex
	notes map[string]int32
}

// MethodMapper gives the Java names.
func (c *Catalogue) MethodMapper() map[string]string {
	return map[string]string{
		"Hello": "hello", "Who": "who", "Text": "text", "Bytes": "bytes", "Same": "same", "Nothing": "nothing", "Grow": "grow",
		"Measure": "measure", "Slow": "slow", "Fail": "fail", "Note": "note", "Noted": "noted", "Attachments": "attachments",
		"Caller": "caller",
	}
}

// Reference is the interface.
func (c *Catalogue) Reference() string { return catalogue }

func (c *Catalogue) Hello(_ context.Context, who string) (string, error) {
	return c.name + " greets " + who, nil
}

func (c *Catalogue) Who(_ context.Context) (string, error) { return c.name, nil }

func (c *Catalogue) Text(_ context.Context, text string) (string, error) { return text, nil }

func (c *Catalogue) Bytes(_ context.Context, data []byte) ([]byte, error) { return data, nil }

func (c *Catalogue) Same(_ context.Context, item *Item) (*Item, error) { return item, nil }

func (c *Catalogue) Nothing(_ context.Context, _ string) (*Item, error) { return nil, nil }

func (c *Catalogue) Grow(_ context.Context, size int32) ([]byte, error) {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return data, nil
}

func (c *Catalogue) Measure(_ context.Context, data []byte) (int32, error) {
	return int32(len(data)), nil
}

func (c *Catalogue) Slow(_ context.Context, millis int32) (string, error) {
	time.Sleep(time.Duration(millis) * time.Millisecond)
	return fmt.Sprintf("%s after %d", c.name, millis), nil
}

func (c *Catalogue) Fail(_ context.Context, how string) (string, error) {
	switch how {
	case "declared":
		return "", &Declared{DetailMessage: "not found: \u00e9\u4e2d\U0001f600", Code: 7}
	case "runtime":
		return "", errors.New("in a bad state")
	}
	return how, nil
}

func (c *Catalogue) Note(_ context.Context, key string) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.notes[key]++
	return nil
}

func (c *Catalogue) Noted(_ context.Context, key string, atLeast int32) (int32, error) {
	var count int32
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c.mutex.Lock()
		count = c.notes[key]
		c.mutex.Unlock()
		if count >= atLeast {
			break
		}
	}
	return count, nil
}

// Caller is always the same, for the idle scenario of the Java consumer.
func (c *Catalogue) Caller(_ context.Context) (string, error) { return "?", nil }

func (c *Catalogue) Attachments(ctx context.Context, prefix string) (string, error) {
	var seen []string
	if all, ok := ctx.Value(constant.AttachmentKey).(map[string]any); ok {
		for key, value := range all {
			if strings.HasPrefix(key, prefix) {
				seen = append(seen, fmt.Sprintf("%s=%v", key, value))
			}
		}
	}
	sort.Strings(seen)
	return strings.Join(seen, ", "), nil
}

func provide(port string, name string) {
	config.SetProviderService(&Catalogue{name: name, notes: map[string]int32{}})
	service := config.NewServiceConfigBuilder().SetInterface(catalogue).SetNotRegister(true).SetProtocolIDs("dubbo").Build()
	root := settings().
		SetProvider(config.NewProviderConfigBuilder().AddService(catalogue, service).Build()).
		AddProtocol("dubbo", protocol(port)).
		Build()
	fatal(config.Load(config.WithRootConfig(root)))
	for {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println("port", port)
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
