// A peer of a node, made of flynn/noise, hashicorp/yamux and what docs/peers.md and the layouts in the engine say, for
// tests/interop/test_node_go.py; with noise_channel.go.
//
//	node_peer NAME PROLOGUE SECRET BYTE PORT SEED
//
// Dials a node on this host, introduces itself with an identity of SEED, has 300 KiB echoed on a substream for /test/echo/1,
// sends a message and takes one. Prints who it is and who the node is, what it took, and "ok" at the end of its input.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/crypto/blake2b"
)

const (
	identityProtocol  = "/partywire/identity/1"
	messagingProtocol = "/partywire/messaging/1"
	claimLabel        = "partywire peer claim 1\x00"
	userAgent         = "go peer"
	signatureSize     = 64
	// Where the keys stand in a claim.
	identityKeyAt = 13
	noiseKeyAt    = 45
	userAgentAt   = 77
	// Flags of a negotiation: it is not asked for.
	optimistic = 3
	// Kinds of frames of messages.
	kindMessage = 1
	kindTaken   = 2
)

func peerID(key []byte) []byte {
	hash, err := blake2b.New(13, nil)
	check(err)
	hash.Write(key)
	return hash.Sum(nil)
}

func claim(identity ed25519.PrivateKey, noiseKey []byte) []byte {
	body := binary.BigEndian.AppendUint64([]byte{1}, uint64(time.Now().Unix()))
	body = binary.BigEndian.AppendUint32(body, 0)
	body = append(body, identity.Public().(ed25519.PublicKey)...)
	body = append(body, noiseKey...)
	body = append(append(body, byte(len(userAgent))), userAgent...)
	body = append(body, 0) // addresses
	body = append(append(body, 1, byte(len(messagingProtocol))), messagingProtocol...)
	return append(body, ed25519.Sign(identity, append([]byte(claimLabel), body...))...)
}

// checkClaim sees that the holder of its identity key signed it, with the key of Noise that was shown; it gives the key.
func checkClaim(claim, noiseKey []byte) []byte {
	if len(claim) < userAgentAt+signatureSize {
		check(errors.New("a short claim"))
	}
	key := claim[identityKeyAt:noiseKeyAt]
	body, signature := claim[:len(claim)-signatureSize], claim[len(claim)-signatureSize:]
	if !ed25519.Verify(key, append([]byte(claimLabel), body...), signature) {
		check(errors.New("the signature of the claim is wrong"))
	}
	if !bytes.Equal(claim[noiseKeyAt:userAgentAt], noiseKey) {
		check(errors.New("the claim is of another key of Noise"))
	}
	return key
}

func write(stream io.Writer, data []byte) {
	_, err := stream.Write(data)
	check(err)
}

func read(stream io.Reader, size int) []byte {
	data := make([]byte, size)
	_, err := io.ReadFull(stream, data)
	check(err)
	return data
}

func sized(data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...)
}

func readSized(stream io.Reader) []byte {
	return read(stream, int(binary.BigEndian.Uint16(read(stream, 2))))
}

// open opens a substream for a protocol that is known to be served.
func open(session *yamux.Session, protocol string) net.Conn {
	stream, err := session.Open()
	check(err)
	write(stream, append([]byte{byte(len(protocol)), optimistic}, protocol...))
	return stream
}

// accept takes the next substream, which must be for the protocol.
func accept(session *yamux.Session, protocol string) net.Conn {
	stream, err := session.Accept()
	check(err)
	head := read(stream, 2)
	if asked := string(read(stream, int(head[0]))); asked != protocol || head[1] != optimistic {
		check(fmt.Errorf("a substream for %q, flags %d", asked, head[1]))
	}
	return stream
}

func writeMessage(stream io.Writer, kind byte, id, body []byte) {
	frame := binary.BigEndian.AppendUint32(nil, uint32(1+len(id)+len(body)))
	write(stream, append(append(append(frame, kind), id...), body...))
}

func readMessage(stream io.Reader) (kind byte, id, body []byte) {
	frame := read(stream, int(binary.BigEndian.Uint32(read(stream, 4))))
	return frame[0], frame[1:17], frame[17:]
}

func main() {
	arguments := os.Args[1:]
	conn, err := net.Dial("tcp", "127.0.0.1:"+arguments[4])
	check(err)
	secure := secured(conn, true, arguments)
	session, err := yamux.Client(secure, config())
	check(err)

	// Who we are, and who the node is.
	identity := ed25519.NewKeyFromSeed(unhex(arguments[5]))
	introduction := open(session, identityProtocol)
	write(introduction, append(sized(claim(identity, keyPair(arguments[2]).Public)), sized(nil)...))
	if verdict := read(introduction, 1)[0]; verdict != 0 {
		check(fmt.Errorf("refused with %d: %s", verdict, read(introduction, int(read(introduction, 1)[0]))))
	}
	key := checkClaim(readSized(introduction), secure.peer)
	readSized(introduction) // where the node sees us
	introduction.Close()
	fmt.Printf("%x %x\n", peerID(identity.Public().(ed25519.PublicKey)), peerID(key))

	// A protocol of the test.
	data := make([]byte, 300*1024)
	rand.New(rand.NewSource(1)).Read(data)
	echo := open(session, "/test/echo/1")
	go write(echo, data)
	if !bytes.Equal(read(echo, len(data)), data) {
		check(errors.New("the echo is another one"))
	}
	echo.Close()

	// A message there, and one here.
	there := open(session, messagingProtocol)
	id := []byte("0123456789abcdef")
	writeMessage(there, kindMessage, id, []byte("from go"))
	if kind, taken, _ := readMessage(there); kind != kindTaken || !bytes.Equal(taken, id) {
		check(errors.New("the message was not taken"))
	}
	here := accept(session, messagingProtocol)
	kind, id, body := readMessage(here)
	if kind != kindMessage {
		check(errors.New("no message"))
	}
	fmt.Println(string(body))
	writeMessage(here, kindTaken, id, nil)
	io.Copy(io.Discard, os.Stdin) // until the test has seen it
	fmt.Println("ok")
	session.Close()
}
