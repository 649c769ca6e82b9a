// hashicorp/yamux as a player of partywire.perf.substreams, which says what is measured.
//
//	peer serve              prints its port, serves one connection
//	peer dial PORT SECONDS  plays every case, about SECONDS each; prints them as JSON
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/yamux"
)

const headSize = 9

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func config() *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	config.MaxStreamWindowSize = 16 << 20 // what ours may grow to
	return config
}

func serveStream(stream *yamux.Stream) {
	defer stream.Close()
	head := make([]byte, headSize)
	if _, err := io.ReadFull(stream, head[:1]); err != nil {
		return
	}
	if head[0] == 'O' {
		stream.Write(head[:1])
		return
	}
	if _, err := io.ReadFull(stream, head[1:]); err != nil {
		return
	}
	count, size := binary.BigEndian.Uint32(head[1:]), binary.BigEndian.Uint32(head[5:])
	message := make([]byte, size)
	for ; count > 0; count-- {
		if _, err := io.ReadFull(stream, message); err != nil {
			return
		}
		if head[0] == 'E' {
			if _, err := stream.Write(message); err != nil {
				return
			}
		}
	}
	if head[0] == 'M' {
		stream.Write(head[:1])
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	check(err)
	session, err := yamux.Server(conn, config())
	check(err)
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return
		}
		go serveStream(stream)
	}
}

func open(session *yamux.Session, kind byte, count, size int) *yamux.Stream {
	stream, err := session.OpenStream()
	check(err)
	head := make([]byte, headSize)
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(count))
	binary.BigEndian.PutUint32(head[5:], uint32(size))
	_, err = stream.Write(head)
	check(err)
	return stream
}

func oneWay(session *yamux.Session, size int) func(int) {
	message := make([]byte, size)
	return func(count int) {
		stream := open(session, 'M', count, size)
		for i := 0; i < count; i++ {
			_, err := stream.Write(message)
			check(err)
		}
		_, err := io.ReadFull(stream, message[:1])
		check(err)
		stream.Close()
	}
}

func pingPong(session *yamux.Session) func(int) {
	message := make([]byte, 64)
	return func(count int) {
		stream := open(session, 'E', count, len(message))
		for i := 0; i < count; i++ {
			_, err := stream.Write(message)
			check(err)
			_, err = io.ReadFull(stream, message)
			check(err)
		}
		stream.Close()
	}
}

func openClose(session *yamux.Session) func(int) {
	reply := make([]byte, 1)
	return func(count int) {
		for i := 0; i < count; i++ {
			stream, err := session.OpenStream()
			check(err)
			_, err = stream.Write([]byte{'O'})
			check(err)
			_, err = io.ReadFull(stream, reply)
			check(err)
			stream.Close()
		}
	}
}

// The rate of a play of about so many seconds, behind a short one that says how much that is.
func rate(play func(int), probe int, seconds float64) float64 {
	began := time.Now()
	play(probe)
	count := int(float64(probe) / time.Since(began).Seconds() * seconds)
	if count < probe {
		count = probe
	}
	began = time.Now()
	play(count)
	return float64(count) / time.Since(began).Seconds()
}

func dial(port string, seconds float64) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	check(err)
	session, err := yamux.Client(conn, config())
	check(err)
	rates := map[string]float64{
		"small": rate(oneWay(session, 64), 200, seconds),
		"block": rate(oneWay(session, 64<<10), 20, seconds),
		"ping":  rate(pingPong(session), 50, seconds),
		"open":  rate(openClose(session), 50, seconds),
	}
	check(json.NewEncoder(os.Stdout).Encode(rates))
	session.Close()
}

func main() {
	if os.Args[1] == "serve" {
		serve()
		return
	}
	seconds, err := strconv.ParseFloat(os.Args[3], 64)
	check(err)
	dial(os.Args[2], seconds)
}
