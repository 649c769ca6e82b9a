// A peer made of flynn/noise and hashicorp/yamux, for tests/interop/test_noise_go.py. Handshake messages and records
// are preceded by their size in two bytes, big-endian.
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
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/flynn/noise"
	"github.com/hashicorp/yamux"
)

// A direction takes a new key behind so many records.
const rekeyRecords = 1 << 16

var patterns = map[string]noise.HandshakePattern{
	"XX": noise.HandshakeXX, "IX": noise.HandshakeIX, "KK": noise.HandshakeKK,
}
var ciphers = map[string]noise.CipherFunc{"ChaChaPoly": noise.CipherChaChaPoly, "AESGCM": noise.CipherAESGCM}
var hashes = map[string]noise.HashFunc{
	"SHA256": noise.HashSHA256, "SHA512": noise.HashSHA512, "BLAKE2s": noise.HashBLAKE2s, "BLAKE2b": noise.HashBLAKE2b,
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func unhex(text string) []byte {
	data, err := hex.DecodeString(text)
	check(err)
	return data
}

func begin(name string, initiator bool, prologue, secret, peer string) *noise.HandshakeState {
	parts := strings.Split(name, "_")
	// The key pair that begins with these secret bytes.
	static, err := noise.DH25519.GenerateKeypair(bytes.NewReader(unhex(secret)))
	check(err)
	config := noise.Config{
		CipherSuite:   noise.NewCipherSuite(noise.DH25519, ciphers[parts[3]], hashes[parts[4]]),
		Pattern:       patterns[parts[1]],
		Initiator:     initiator,
		Prologue:      unhex(prologue),
		StaticKeypair: static,
	}
	if peer != "-" {
		config.PeerStatic = unhex(peer)
	}
	state, err := noise.NewHandshakeState(config)
	check(err)
	return state
}

// channel is both halves of a connection whose records are sealed.
type channel struct {
	net.Conn
	in            *bufio.Reader
	out           io.Writer
	sealer        *noise.CipherState
	opener        *noise.CipherState
	sealed        int
	opened        int
	rest          []byte
	payloads      []string
	binding, peer []byte
}

func (c *channel) readFrame() ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.in, head); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head))
	_, err := io.ReadFull(c.in, body)
	return body, err
}

func (c *channel) writeFrame(body []byte) error {
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(body)), uint16(len(body)))
	_, err := c.out.Write(append(frame, body...))
	return err
}

// shake does the handshake; payloads are sent if there is a label for them.
func (c *channel) shake(state *noise.HandshakeState, initiator bool, label string) {
	for number := 1; c.sealer == nil; number++ {
		var one, two *noise.CipherState
		if initiator == (number%2 == 1) {
			payload := []byte{}
			if label != "" {
				payload = []byte(fmt.Sprint(label, number))
			}
			message, a, b, err := state.WriteMessage(nil, payload)
			check(err)
			check(c.writeFrame(message))
			one, two = a, b
		} else {
			message, err := c.readFrame()
			check(err)
			payload, a, b, err := state.ReadMessage(nil, message)
			check(err)
			c.payloads = append(c.payloads, string(payload))
			one, two = a, b
		}
		c.sealer, c.opener = one, two
	}
	if !initiator {
		c.sealer, c.opener = c.opener, c.sealer
	}
	c.binding, c.peer = state.ChannelBinding(), state.PeerStatic()
}

func (c *channel) seal(plaintext []byte) error {
	record, err := c.sealer.Encrypt(nil, nil, plaintext)
	check(err)
	if c.sealed++; c.sealed%rekeyRecords == 0 {
		c.sealer.Rekey()
	}
	return c.writeFrame(record)
}

func (c *channel) open() ([]byte, error) {
	record, err := c.readFrame()
	if err != nil {
		return nil, err
	}
	plaintext, err := c.opener.Decrypt(nil, nil, record)
	check(err)
	if c.opened++; c.opened%rekeyRecords == 0 {
		c.opener.Rekey()
	}
	return plaintext, nil
}

// Read and Write make a net.Conn of it, for yamux.

func (c *channel) Read(room []byte) (int, error) {
	for len(c.rest) == 0 {
		plaintext, err := c.open()
		if err != nil {
			return 0, err
		}
		if len(plaintext) == 0 {
			return 0, io.EOF
		}
		c.rest = plaintext
	}
	count := copy(room, c.rest)
	c.rest = c.rest[count:]
	return count, nil
}

func (c *channel) Write(data []byte) (int, error) {
	written := 0
	for written < len(data) {
		size := len(data) - written
		if size > 65519 {
			size = 65519
		}
		if err := c.seal(data[written : written+size]); err != nil {
			return written, err
		}
		written += size
	}
	return written, nil
}

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

func secured(conn net.Conn, initiator bool, arguments []string) *channel {
	network := unhex(arguments[3])
	c := &channel{Conn: conn, in: bufio.NewReaderSize(conn, 1<<17), out: conn}
	if initiator {
		_, err := conn.Write(network)
		check(err)
	} else if first, err := c.in.ReadByte(); err != nil || first != network[0] {
		check(errors.New("not our network"))
	}
	c.shake(begin(arguments[0], initiator, arguments[1], arguments[2], "-"), initiator, "")
	return c
}

func config() *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = os.Stderr
	return config
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
