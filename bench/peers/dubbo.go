// Consumers and providers for bench/dubbo.py, light enough not to be what is measured: frames are made once, only ids are
// written into them, and one read or write serves as many frames as are there.
//
//	dubbo provide ADDRESS LETTER          answers every call with a string of this one letter, heartbeats too
//	dubbo load ADDRESS CONNECTIONS IN_FLIGHT SECONDS TAG=LETTER... [unique]
//
// load prints "calls seconds". Calls carry the tags in turn, and every answer must hold the letter of its tag.
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const header = 16

func text(s string) []byte {
	if len(s) < 32 {
		return append([]byte{byte(len(s))}, s...)
	}
	return append([]byte{byte(0x30 + len(s)>>8), byte(len(s))}, s...)
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

// A call as a Dubbo 3 consumer writes it: sayHello("world") with the usual attachments.
func call(tag, trace string) []byte {
	service := "org.apache.dubbo.demo.HelloService"
	parts := [][]byte{
		text("2.0.2"), text(service), text("1.0.0"), text("sayHello"), text("Ljava/lang/String;"), text("world"), {'H'},
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

func load(address string, connections, inFlight int, seconds float64, tags []string, unique bool) {
	calls := make([][]byte, len(tags))
	letters := make([]byte, len(tags))
	trace := ""
	if unique {
		trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	}
	for i, one := range tags {
		tag, letter, _ := strings.Cut(one, "=")
		calls[i], letters[i] = call(tag, trace), letter[0]
	}
	var done, failed atomic.Int64
	var group sync.WaitGroup
	started := time.Now()
	deadline := started.Add(time.Duration(seconds * float64(time.Second)))
	for c := 0; c < connections; c++ {
		group.Add(1)
		go func(id uint64) {
			defer group.Done()
			connection, err := net.Dial("tcp", address)
			if err != nil {
				panic(err)
			}
			defer connection.Close()
			out := []byte{}
			waiting := 0
			send := func() {
				id++
				at := len(out)
				out = append(out, calls[id%uint64(len(calls))]...)
				binary.BigEndian.PutUint64(out[at+4:], id)
				if unique { // the last 16 digits of the span, in front of "-01" and the closing Z
					copy(out[len(out)-20:], fmt.Sprintf("%016x", id))
				}
				waiting++
			}
			for i := 0; i < inFlight; i++ {
				send()
			}
			connection.Write(out)
			out = out[:0]
			err = frames(connection, func(one []byte) {
				waiting--
				answered := binary.BigEndian.Uint64(one[4:])
				if one[3] != 20 || one[header+2] != letters[answered%uint64(len(calls))] {
					failed.Add(1)
				}
				done.Add(1)
				if time.Now().Before(deadline) {
					send()
				}
			}, func() bool {
				if len(out) > 0 {
					connection.Write(out)
					out = out[:0]
				}
				return waiting > 0
			})
			if err != nil {
				failed.Add(1)
			}
		}(uint64(c) << 32)
	}
	group.Wait()
	if failed.Load() > 0 {
		fmt.Fprintln(os.Stderr, failed.Load(), "calls failed or were answered by the wrong provider")
		os.Exit(1)
	}
	fmt.Println(done.Load(), time.Since(started).Seconds())
}

func main() {
	if os.Args[1] == "provide" {
		provide(os.Args[2], os.Args[3])
		return
	}
	connections, _ := strconv.Atoi(os.Args[3])
	inFlight, _ := strconv.Atoi(os.Args[4])
	seconds, _ := strconv.ParseFloat(os.Args[5], 64)
	tags := os.Args[6:]
	unique := tags[len(tags)-1] == "unique"
	if unique {
		tags = tags[:len(tags)-1]
	}
	load(os.Args[2], connections, inFlight, seconds, tags, unique)
}
