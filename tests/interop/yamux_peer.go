// A peer made of hashicorp/yamux, the reference implementation, for tests/interop/test_yamux_go.py.
//
//	yamux_peer serve         prints its port, serves one connection: every stream is echoed, half by half
//	yamux_peer dial PORT N   opens N streams at once, sends 1 MiB on each, and compares the echo; prints "ok"
package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/hashicorp/yamux"
)

func fail(err error) {
	fmt.Println("error:", err)
	os.Exit(1)
}

func config() *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = os.Stderr
	return config
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	if err != nil {
		fail(err)
	}
	session, err := yamux.Server(conn, config())
	if err != nil {
		fail(err)
	}
	for {
		stream, err := session.Accept()
		if err != nil {
			fmt.Println("over:", err)
			return
		}
		go func() {
			io.Copy(stream, stream)
			stream.Close()
		}()
	}
}

func dial(port string, count int) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		fail(err)
	}
	session, err := yamux.Client(conn, config())
	if err != nil {
		fail(err)
	}
	var done sync.WaitGroup
	for i := 0; i < count; i++ {
		done.Add(1)
		go func(seed int64) {
			defer done.Done()
			stream, err := session.Open()
			if err != nil {
				fail(err)
			}
			data := make([]byte, 1<<20)
			rand.New(rand.NewSource(seed)).Read(data)
			go func() {
				if _, err := stream.Write(data); err != nil {
					fail(err)
				}
			}()
			// Closed behind the echo: in this release who has closed a stream reads end of file at once.
			echo := make([]byte, len(data))
			if _, err := io.ReadFull(stream, echo); err != nil {
				fail(err)
			}
			if !bytes.Equal(echo, data) {
				fail(fmt.Errorf("stream %d came back changed", seed))
			}
			stream.Close()
		}(int64(i))
	}
	done.Wait()
	rtt, err := session.Ping()
	if err != nil {
		fail(err)
	}
	fmt.Println("ok", rtt > 0)
	session.Close()
}

func main() {
	switch os.Args[1] {
	case "serve":
		serve()
	case "dial":
		count, err := strconv.Atoi(os.Args[3])
		if err != nil {
			fail(err)
		}
		dial(os.Args[2], count)
	}
}
