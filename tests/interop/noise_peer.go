// A peer made of flynn/noise and hashicorp/yamux, for tests/interop/test_noise_go.py; with noise_channel.go.
//
//	noise_peer talk NAME ROLE PROLOGUE SECRET PEER   over standard input and output: handshake messages with payloads,
//	    then every record comes back; a record without plaintext is answered with another one and is the end. PEER is
//	    the other static key where the pattern needs it, else "-". Says on standard error what both ends must agree on.
//	noise_peer serve NAME PROLOGUE SECRET BYTE       prints its port; serves one connection: BYTE, handshake, yamux,
//	    every stream is echoed
//	noise_peer dial NAME PROLOGUE SECRET BYTE PORT   the other way: three streams at once, 1 MiB each; prints "ok"
//
// All that is binary is given in hexadecimal. NAME is as in Noise_XX_25519_ChaChaPoly_BLAKE2s.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/yamux"
)

func talk(arguments []string) {
	initiator := arguments[1] == "initiator"
	c := &channel{in: bufio.NewReader(os.Stdin), out: os.Stdout}
	c.shake(begin(arguments[0], initiator, arguments[2], arguments[3], arguments[4]), initiator, "from go ")
	out := bufio.NewWriter(os.Stdout)
	c.out = out
	for {
		plaintext, err := c.open()
		check(err)
		check(c.seal(plaintext))
		if c.in.Buffered() == 0 || len(plaintext) == 0 {
			check(out.Flush())
		}
		if len(plaintext) == 0 {
			break
		}
	}
	fmt.Fprintf(os.Stderr, "%x %x %s\n", c.binding, c.peer, strings.Join(c.payloads, ","))
}

func serve(arguments []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	check(err)
	c := secured(conn, false, arguments)
	fmt.Printf("%x\n", c.peer)
	session, err := yamux.Server(c, config())
	check(err)
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

func dial(arguments []string) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+arguments[4])
	check(err)
	session, err := yamux.Client(secured(conn, true, arguments), config())
	check(err)
	var done sync.WaitGroup
	for seed := int64(0); seed < 3; seed++ {
		done.Add(1)
		go func(seed int64) {
			defer done.Done()
			stream, err := session.Open()
			check(err)
			data := make([]byte, 1<<20)
			rand.New(rand.NewSource(seed)).Read(data)
			go func() {
				_, err := stream.Write(data)
				check(err)
			}()
			echo := make([]byte, len(data))
			_, err = io.ReadFull(stream, echo)
			check(err)
			if !bytes.Equal(echo, data) {
				check(fmt.Errorf("stream %d came back changed", seed))
			}
			stream.Close()
		}(seed)
	}
	done.Wait()
	fmt.Println("ok")
	session.Close()
}

func main() {
	map[string]func([]string){"talk": talk, "serve": serve, "dial": dial}[os.Args[1]](os.Args[2:])
}
