// A gRPC server for benchmarks, of the standard library alone: it answers a unary call with the message that it got, and a call of
// /bench.Echo/Stream with all messages as they come.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server := &http.Server{
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: 1024, MaxReceiveBufferPerConnection: 1 << 20},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header := w.Header()
			header["Content-Type"] = []string{"application/grpc"}
			if r.URL.Path == "/bench.Echo/Stream" {
				io.Copy(w, r.Body)
			} else {
				var message [1024]byte
				size, _ := io.ReadFull(r.Body, message[:])
				w.Write(message[:size])
			}
			header[http.TrailerPrefix+"Grpc-Status"] = []string{"0"}
		}),
	}
	fmt.Fprintln(os.Stderr, server.Serve(listener))
}
