// Judges a log on disk with Go's own sumdb/tlog and sumdb/note; used by test_ledger_judges.py.
//
// Arguments: the log's folder, the verifier key, a file of proofs (index, then hashes, base64);
// or `cosigned`, a signed note, the log's verifier key, and a witness's, whose cosignature is judged
// by the rule of C2SP tlog-cosignature, written here anew over crypto/ed25519.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type folder struct{ path string }

func (f folder) Height() int { return 8 }

func (f folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		raw, err := os.ReadFile(filepath.Join(f.path, name))
		if err != nil {
			return nil, err
		}
		found = append(found, raw)
	}
	return found, nil
}

func must(err error) {
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func opened(path, vkey string) tlog.Tree {
	verifier, err := note.NewVerifier(vkey)
	must(err)
	raw, err := os.ReadFile(path)
	must(err)
	found, err := note.Open(raw, note.VerifierList(verifier))
	must(err)
	lines := strings.Split(found.Text, "\n")
	if lines[0] != verifier.Name() {
		must(fmt.Errorf("origin %q", lines[0]))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	return tlog.Tree{N: size, Hash: root}
}

// A witness: a note.Verifier for signatures of type 0x04.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w witness) Name() string { return w.name }

func (w witness) KeyHash() uint32 { return w.hash }

func (w witness) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	return ed25519.Verify(w.key, append([]byte(head), msg...), sig[8:])
}

func newWitness(vkey string) witness {
	parts := strings.SplitN(vkey, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	must(err)
	if raw[0] != 4 || len(raw) != 1+ed25519.PublicKeySize {
		must(fmt.Errorf("not a witness's key"))
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	hash := binary.BigEndian.Uint32(sum[:])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		must(fmt.Errorf("key id %s", parts[1]))
	}
	return witness{parts[0], hash, raw[1:]}
}

func judgeCosigned() {
	log, err := note.NewVerifier(os.Args[3])
	must(err)
	raw, err := os.ReadFile(os.Args[2])
	must(err)
	found, err := note.Open(raw, note.VerifierList(log, newWitness(os.Args[4])))
	must(err)
	fmt.Println("signatures:", len(found.Sigs), "unknown:", len(found.UnverifiedSigs))
}

func leaves(f folder, size int64) [][]byte {
	var found [][]byte
	for n := int64(0); n*256 < size; n++ {
		tile := tlog.Tile{H: 8, L: 0, N: n, W: 256}
		if size-n*256 < 256 {
			tile.W = int(size - n*256)
		}
		name := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
		raw, err := os.ReadFile(filepath.Join(f.path, name))
		must(err)
		for len(raw) > 0 {
			length := int(binary.BigEndian.Uint16(raw))
			found = append(found, raw[2:2+length])
			raw = raw[2+length:]
		}
	}
	return found
}

func main() {
	if os.Args[1] == "cosigned" {
		judgeCosigned()
		return
	}
	f := folder{os.Args[1]}
	names, err := filepath.Glob(filepath.Join(f.path, "checkpoint", "*"))
	must(err)
	tree := opened(names[len(names)-1], os.Args[2])
	reader := tlog.TileHashReader(tree, f)
	entries := leaves(f, tree.N)
	if int64(len(entries)) != tree.N {
		must(fmt.Errorf("%d leaves for %d entries", len(entries), tree.N))
	}
	for start := 0; start < len(entries); start += 4096 {
		var indexes []int64
		for n := start; n < len(entries) && n < start+4096; n++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, int64(n)))
		}
		hashes, err := reader.ReadHashes(indexes)
		must(err)
		for at, hash := range hashes {
			if hash != tlog.RecordHash(entries[start+at]) {
				must(fmt.Errorf("entry %d is not in the tree", start+at))
			}
		}
	}
	for _, name := range names {
		older := opened(name, os.Args[2])
		proof, err := tlog.ProveTree(tree.N, older.N, reader)
		must(err)
		must(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash))
	}
	raw, err := os.ReadFile(os.Args[3])
	must(err)
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		fields := strings.Fields(line)
		index, err := strconv.ParseInt(fields[0], 10, 64)
		must(err)
		var proof tlog.RecordProof
		for _, field := range fields[1:] {
			hash, err := base64.StdEncoding.DecodeString(field)
			must(err)
			proof = append(proof, *(*tlog.Hash)(hash))
		}
		leaf := tlog.RecordHash(entries[index])
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf))
		theirs, err := tlog.ProveRecord(tree.N, index, reader)
		must(err)
		if fmt.Sprint(theirs) != fmt.Sprint(proof) {
			must(fmt.Errorf("proof of entry %d differs from Go's", index))
		}
	}
	fmt.Println("whole:", tree.N)
}
