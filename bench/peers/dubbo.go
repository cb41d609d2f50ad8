// Consumers and providers of the Dubbo workloads, light enough not to be what is measured: frames are made once, only ids are
// written into them, and one read or write serves as many frames as are there.
//
//	dubbo provide ADDRESS LETTER          answers every call with a string of this one letter, heartbeats too
//	dubbo load ADDRESS CONNECTIONS IN_FLIGHT SECONDS TAG=LETTER... [unique] [argument=BYTES] [rate=PER_SECOND]
//
// load prints "calls seconds p50 p99 p99.9", the latencies in microseconds. Calls carry the tags in turn, and every answer must
// hold the letter of its tag. With a rate, calls leave at fixed moments, whatever is still to be answered, and latency counts from
// the moment at which a call should have left.
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

const header = 16

func text(s string) []byte {
	if len(s) < 32 {
		return append([]byte{byte(len(s))}, s...)
	}
	if len(s) < 1024 {
		return append([]byte{byte(0x30 + len(s)>>8), byte(len(s))}, s...)
	}
	return append([]byte{'S', byte(len(s) >> 8), byte(len(s))}, s...)
}

func frame(flags, status byte, parts ...[]byte) []byte {
	body := []byte{}
	for _, part := range parts {
		body = append(body, part...)
	}
	made := make([]byte, header, header+len(body))
	made[0], made[1], made[2], made[3] = 0xda, 0xbb, flags, status
	binary.BigEndian.PutUint32(made[12:], uint32(len(body)))
	return append(made, body...)
}

// A call as a Dubbo 3 consumer writes it: sayHello(argument) with the usual attachments.
func call(tag, trace, argument string) []byte {
	service := "org.apache.dubbo.demo.HelloService"
	parts := [][]byte{
		text("2.0.2"), text(service), text("1.0.0"), text("sayHello"), text("Ljava/lang/String;"), text(argument), {'H'},
	}
	pairs := []string{
		"path", service, "remote.application", "consumer", "interface", service, "version", "1.0.0", "timeout", "3000",
	}
	if tag != "" {
		pairs = append(pairs, "dubbo.tag", tag)
	}
	if trace != "" {
		pairs = append(pairs, "traceparent", trace)
	}
	for _, one := range pairs {
		parts = append(parts, text(one))
	}
	return frame(0xc2, 0, append(parts, []byte{'Z'})...)
}

// frames calls f with each whole frame of a connection, and flush after each read.
func frames(connection net.Conn, f func([]byte), flush func() bool) error {
	buffer := make([]byte, 256*1024)
	filled := 0
	for {
		n, err := connection.Read(buffer[filled:])
		if err != nil {
			return err
		}
		filled += n
		at := 0
		for filled-at >= header {
			if buffer[at] != 0xda || buffer[at+1] != 0xbb {
				return fmt.Errorf("no Dubbo: %x", buffer[at:at+header])
			}
			end := at + header + int(binary.BigEndian.Uint32(buffer[at+12:]))
			if end > filled {
				break
			}
			f(buffer[at:end])
			at = end
		}
		copy(buffer, buffer[at:filled])
		filled -= at
		if !flush() {
			return nil
		}
	}
}

func provide(address, letter string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	answer := frame(0x02, 20, []byte{0x94}, text(letter), []byte{'H'}, text("dubbo"), text("2.0.2"), []byte{'Z'})
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer connection.Close()
			out := []byte{}
			frames(connection, func(one []byte) {
				at := len(out)
				if one[2]&0x20 != 0 {
					if one[2]&0xc0 == 0xc0 {
						out = append(append(out, 0xda, 0xbb, 0x22, 20), one[4:]...)
					}
					return
				}
				out = append(out, answer...)
				copy(out[at+4:at+12], one[4:12])
			}, func() bool {
				_, err := connection.Write(out)
				out = out[:0]
				return err == nil
			})
		}()
	}
}

type options struct {
	connections, inFlight int
	seconds, rate         float64
	tags                  []string
	unique                bool
	argument              string
}

const remembered = 1 << 16 // calls of a connection whose start is known

// A consumer is one connection with its calls in flight.
type consumer struct {
	connection net.Conn
	calls      [][]byte
	letters    []byte
	unique     bool
	id         uint64
	out        []byte
	waiting    int
	started    [remembered]time.Time
	took       []time.Duration
	failed     int
}

func (c *consumer) send(at time.Time) {
	c.id++
	start := len(c.out)
	c.out = append(c.out, c.calls[c.id%uint64(len(c.calls))]...)
	binary.BigEndian.PutUint64(c.out[start+4:], c.id)
	if c.unique { // the last 16 digits of the span, in front of "-01" and the closing Z
		copy(c.out[len(c.out)-20:], fmt.Sprintf("%016x", c.id))
	}
	c.started[c.id%remembered] = at
	c.waiting++
}

func (c *consumer) answered(one []byte, now time.Time) {
	id := binary.BigEndian.Uint64(one[4:])
	if one[3] != 20 || one[header+2] != c.letters[id%uint64(len(c.calls))] {
		c.failed++
	}
	c.waiting--
	c.took = append(c.took, now.Sub(c.started[id%remembered]))
}

func (c *consumer) write() {
	if len(c.out) > 0 {
		c.connection.Write(c.out)
		c.out = c.out[:0]
	}
}

// asFast keeps a number of calls in flight.
func (c *consumer) asFast(inFlight int, deadline time.Time) error {
	for i := 0; i < inFlight; i++ {
		c.send(time.Now())
	}
	c.write()
	return frames(c.connection, func(one []byte) {
		now := time.Now()
		c.answered(one, now)
		if now.Before(deadline) {
			c.send(now)
		}
	}, func() bool {
		c.write()
		return c.waiting > 0
	})
}

// paced sends a call each interval.
func (c *consumer) paced(interval time.Duration, deadline time.Time) error {
	var lock sync.Mutex
	go func() {
		for next := time.Now(); next.Before(deadline); next = next.Add(interval) {
			time.Sleep(time.Until(next))
			lock.Lock()
			c.send(next)
			c.write()
			lock.Unlock()
		}
	}()
	return frames(c.connection, func(one []byte) {
		lock.Lock()
		c.answered(one, time.Now())
		lock.Unlock()
	}, func() bool {
		lock.Lock()
		defer lock.Unlock()
		return c.waiting > 0 || time.Now().Before(deadline)
	})
}

func load(address string, o options) {
	calls := make([][]byte, len(o.tags))
	letters := make([]byte, len(o.tags))
	trace := ""
	if o.unique {
		trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	}
	for i, one := range o.tags {
		tag, letter, _ := strings.Cut(one, "=")
		calls[i], letters[i] = call(tag, trace, o.argument), letter[0]
	}
	consumers := make([]*consumer, o.connections)
	for i := range consumers {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			panic(err)
		}
		defer connection.Close()
		consumers[i] = &consumer{connection: connection, calls: calls, letters: letters, unique: o.unique, id: uint64(i) << 32}
	}
	started := time.Now()
	deadline := started.Add(time.Duration(o.seconds * float64(time.Second)))
	var group sync.WaitGroup
	for _, c := range consumers {
		group.Add(1)
		go func() {
			defer group.Done()
			var err error
			if o.rate > 0 {
				interval := time.Duration(float64(o.connections) / o.rate * float64(time.Second))
				c.connection.SetReadDeadline(deadline.Add(time.Second)) // the last call may be answered before the loop looks again
				err = c.paced(interval, deadline)
				if c.waiting == 0 {
					err = nil
				}
			} else {
				err = c.asFast(o.inFlight, deadline)
			}
			if err != nil {
				c.failed++
			}
		}()
	}
	group.Wait()
	elapsed := time.Since(started)
	if o.rate > 0 {
		elapsed = deadline.Sub(started)
	}
	took := []time.Duration{}
	failed := 0
	for _, c := range consumers {
		took = append(took, c.took...)
		failed += c.failed
	}
	if failed > 0 || len(took) == 0 {
		fmt.Fprintln(os.Stderr, failed, "calls failed or were answered by the wrong provider, of", len(took))
		os.Exit(1)
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	at := func(share float64) int64 { return took[min(len(took)-1, int(float64(len(took))*share))].Microseconds() }
	fmt.Println(len(took), elapsed.Seconds(), at(0.5), at(0.99), at(0.999))
}

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return value
}

func main() {
	if os.Args[1] == "provide" {
		provide(os.Args[2], os.Args[3])
		return
	}
	o := options{connections: int(number(os.Args[3])), inFlight: int(number(os.Args[4])), seconds: number(os.Args[5]), argument: "world"}
	for _, word := range os.Args[6:] {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "unique":
			o.unique = true
		case "argument":
			o.argument = strings.Repeat("x", int(number(value)))
		case "rate":
			o.rate = number(value)
		default:
			o.tags = append(o.tags, word)
		}
	}
	load(os.Args[2], o)
}
