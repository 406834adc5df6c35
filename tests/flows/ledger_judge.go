// Judges a log on disk with Go's own sumdb/tlog and sumdb/note; used by test_ledger_judges.py.
//
// Arguments: the log's folder, the verifier key, a file of proofs (index, then hashes, base64).
package main

import (
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
