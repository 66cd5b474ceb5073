package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A record is a line that says when, where, what and how it ended; after a command's line, its script follows in lines that begin
// with "$ ", standard output with "1 ", standard error with "2 ". So no output can pass for a record.

func (c *Client) recordRun(begin time.Time, cmd Command, out Output, err error) {
	if c.cfg.Transcript == nil {
		return
	}
	as, end := c.cfg.User, "exit status 0"
	if cmd.Sudo {
		as = "root"
	}
	if failed := (*RunError)(nil); errors.As(err, &failed) {
		end = fmt.Sprintf("exit status %d", failed.Status)
	} else if err != nil {
		end = oneLine(err.Error())
	}
	var b bytes.Buffer
	c.heading(&b, begin, fmt.Sprintf("ran %s as %s", brief(cmd.Line), as), end)
	quoteLines(&b, "$ ", cmd.Line)
	switch {
	case cmd.Secret:
		quoteLines(&b, "1 ", "(a secret)")
	case cmd.Stdout != nil:
		quoteLines(&b, "1 ", "(passed on)")
	default:
		quoteLines(&b, "1 ", out.Stdout)
	}
	quoteLines(&b, "2 ", out.Stderr)
	c.record(b.Bytes())
}

func (c *Client) recordPut(begin time.Time, u Upload, sent bool, err error) {
	if c.cfg.Transcript == nil {
		return
	}
	end := "there already"
	switch {
	case err != nil:
		end = oneLine(err.Error())
	case sent:
		end = "sent"
	}
	var b bytes.Buffer
	c.heading(&b, begin, fmt.Sprintf("put %s, mode %04o, %d bytes, sha256 %s", oneLine(u.Path), u.Mode, u.Size, oneLine(u.SHA256)), end)
	c.record(b.Bytes())
}

func (c *Client) heading(b *bytes.Buffer, begin time.Time, what, end string) {
	at, took := begin.UTC().Format("2006-01-02T15:04:05.000Z"), time.Since(begin).Round(time.Millisecond)
	fmt.Fprintf(b, "%s %s: %s: %s after %s\n", at, c.cfg.Node, what, end, took)
}

func quoteLines(b *bytes.Buffer, mark, text string) {
	if text == "" {
		return
	}
	for line := range strings.Lines(text) {
		b.WriteString(mark)
		b.WriteString(strings.TrimSuffix(line, "\n"))
		b.WriteByte('\n')
	}
}

func (c *Client) record(text []byte) {
	c.recording.Lock()
	defer c.recording.Unlock()
	if _, err := c.cfg.Transcript.Write(text); err != nil {
		c.log.Warn("writing transcript", "err", err)
	}
}
