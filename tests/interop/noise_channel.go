// A connection whose records are sealed by flynn/noise, for the peers of tests/interop. Handshake messages and records are
// preceded by their size in two bytes, big-endian.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

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

// keyPair is the one with these secret bytes.
func keyPair(secret string) noise.DHKey {
	pair, err := noise.DH25519.GenerateKeypair(bytes.NewReader(unhex(secret)))
	check(err)
	return pair
}

func begin(name string, initiator bool, prologue, secret, peer string) *noise.HandshakeState {
	parts := strings.Split(name, "_")
	config := noise.Config{
		CipherSuite:   noise.NewCipherSuite(noise.DH25519, ciphers[parts[3]], hashes[parts[4]]),
		Pattern:       patterns[parts[1]],
		Initiator:     initiator,
		Prologue:      unhex(prologue),
		StaticKeypair: keyPair(secret),
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

// secured says or hears the network byte and shakes hands. arguments: NAME PROLOGUE SECRET BYTE.
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
