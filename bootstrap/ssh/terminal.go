package ssh

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// RawTerminal puts the terminal behind in into raw mode, so that every key, Ctrl-C too, goes to the host, and returns its
// description and what puts everything back; restore must be called before the program ends, and may be called twice. If in is
// no terminal the description is nil and restore does nothing.
func RawTerminal(ctx context.Context, in *os.File) (t *Terminal, restore func(), err error) {
	fd := int(in.Fd())
	if !term.IsTerminal(fd) {
		return nil, func() {}, nil
	}
	size, err := terminalSize(fd)
	if err != nil {
		return nil, nil, err
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("setting terminal to raw mode: %w", err)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	sizes := make(chan Size)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			size, err := terminalSize(fd)
			if err != nil {
				continue // keep the old size
			}
			select {
			case sizes <- size:
			case <-ctx.Done():
				return
			}
		}
	})
	restore = func() {
		signal.Stop(changed)
		cancel()
		wg.Wait()
		term.Restore(fd, state)
	}
	termType := os.Getenv("TERM")
	if termType == "" {
		termType = "vt100"
	}
	return &Terminal{Type: termType, Size: size, Resize: sizes}, restore, nil
}

func terminalSize(fd int) (Size, error) {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return Size{}, fmt.Errorf("asking terminal for its size: %w", err)
	}
	return Size{Columns: columns, Rows: rows}, nil
}
