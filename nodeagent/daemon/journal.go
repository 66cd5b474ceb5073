package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
)

// journal is the file of what was done: a record of JSON on each line, appended, and on disk before anybody is told. The daemon is its
// only writer.
type journal struct {
	path   string
	file   *os.File
	size   int64 // of what is whole and on disk
	lines  int
	broken bool // a write failed and could not be taken back: what is in the file is not known
}

// compactAt is how many lines more than needed make the journal be written anew.
const compactAt = 512

// replay reads records. A last line without its end was cut off while it was written, so nobody was told, and it is left out; any
// other line that is no record is damage, and an error. It returns the length of what is whole.
func replay(text []byte, apply func(record)) (whole int64, lines int, err error) {
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		if !ok {
			return whole, lines, nil
		}
		var r record
		d := json.NewDecoder(bytes.NewReader(line))
		err := d.Decode(&r)
		if err == nil && d.InputOffset() != int64(len(line)) {
			err = errors.New("there is more on it")
		}
		if err == nil {
			err = r.problem()
		}
		if err != nil {
			return whole, lines, fmt.Errorf("line %d: %w", lines+1, err)
		}
		apply(r)
		whole += int64(len(line)) + 1
		lines++
		text = rest
	}
}

// openJournal reads the journal at path, a missing one as empty, and opens it for more.
func openJournal(path string, apply func(record)) (*journal, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	j := &journal{path: path}
	if j.size, j.lines, err = replay(text, apply); err != nil {
		return nil, fmt.Errorf("reading the journal %s: %w; when no pod is left on this node, remove the file", path, err)
	}
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	return j, nil
}

func (j *journal) open() error {
	f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(j.size); err != nil { // a new line must not continue one that was cut off
		return errors.Join(err, f.Close())
	}
	j.file = f
	return nil
}

func (j *journal) close() error { return j.file.Close() }

// append writes records; when it returns without an error they are on disk. keep returns all that has to be kept, for the file is
// written anew when it has grown, or when what it holds is not known after a write that failed.
func (j *journal) append(keep func() []record, records ...record) error {
	if all := keep(); j.broken || j.lines > len(all)+compactAt {
		if err := j.compact(all); err != nil {
			return fmt.Errorf("writing the journal anew: %w", err)
		}
	}
	text, err := encode(records)
	if err != nil {
		return err
	}
	_, err = j.file.WriteAt(text, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.broken = true // after a failed fsync nobody can say what is on disk
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.size += int64(len(text))
	j.lines += len(records)
	return nil
}

func (j *journal) compact(all []record) error {
	text, err := encode(all)
	if err != nil {
		return err
	}
	if err := socket.Replace(j.path, text); err != nil {
		return err
	}
	old := j.file
	j.size, j.lines = int64(len(text)), len(all)
	if err := j.open(); err != nil {
		j.broken = true
		return err
	}
	j.broken = false
	_ = old.Close() // nothing of it counts any more
	return nil
}

func encode(records []record) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, r := range records {
		if err := e.Encode(r); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}
