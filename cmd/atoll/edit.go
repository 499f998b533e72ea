package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

func editCommand(c *connection) *cobra.Command {
	var mesh string
	var after waiting
	command := c.bind(&cobra.Command{
		Use:   "edit KIND NAME",
		Short: "Change a resource in your editor",
		Long: `Opens the resource in $VISUAL or $EDITOR and applies what you save. If it is refused,
the editor opens again with the reasons at the top; a text that is left unchanged
ends it. What you wrote is never lost: the file is kept, and named, unless it was
applied.`,
		Example: `  atoll edit meshtimeout slow
  EDITOR='code --wait' atoll edit mesh default`,
		Args: arguments(cobra.ExactArgs(2)),
	})
	c.meshFlag(command, &mesh, "mesh of the resource")
	after.bind(command)
	command.ValidArgsFunction = atMost(2, completeResources(c, &mesh, func(info api.Facts) bool { return !info.ReadOnly }))
	// An interrupt while the editor is open is the editor's.
	command.RunE = func(command *cobra.Command, args []string) error {
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if kind.Info().Scope == api.GlobalScope {
			mesh = ""
		} else if mesh, err = c.in(mesh); err != nil {
			return err
		}
		cl, err := after.open(c)
		if err != nil {
			return err
		}
		e := edition{cl: cl, kind: kind, mesh: mesh, name: args[1], command: command}
		done, err := e.run(command.Context())
		if err != nil || done.Result == "" {
			return err
		}
		out, errs := command.OutOrStdout(), command.ErrOrStderr()
		warn(errs, &e.document, done.Warnings)
		did(out, &e.document, done.Result)
		return interruptible(command.Context(), func(ctx context.Context) error {
			return after.wait(ctx, cl, done.Revision, out, errs)
		})
	}
	return command
}

// edition is one resource in an editor.
type edition struct {
	cl         *client.Client
	kind       api.AnyKind
	mesh, name string
	command    *cobra.Command

	stored   string // as it was when the editor opened
	file     string // what the user edits
	document document
}

// run edits until the text is applied, or the user gives up: then the result is
// empty.
func (e *edition) run(ctx context.Context) (client.Applied, error) {
	text := ""
	err := interruptible(ctx, func(ctx context.Context) (err error) {
		text, err = e.fetch(ctx)
		return err
	})
	if err != nil {
		return client.Applied{}, err
	}
	e.stored = text
	if err := e.create(); err != nil {
		return client.Applied{}, err
	}
	var reason error
	for {
		shown := commented(e.advice(reason)) + text
		edited, err := e.open(shown)
		switch {
		case err != nil:
			return client.Applied{}, e.kept(err, edited != shown)
		case edited == shown && reason != nil:
			return client.Applied{}, e.kept(reason, true)
		}
		text = uncommented(edited)
		if text == e.stored || strings.TrimSpace(text) == "" {
			fmt.Fprintln(e.command.ErrOrStderr(), "nothing was changed")
			return client.Applied{}, os.Remove(e.file)
		}
		var done client.Applied
		err = interruptible(ctx, func(ctx context.Context) (err error) {
			done, err = e.apply(ctx, text)
			return err
		})
		if err == nil {
			return done, os.Remove(e.file)
		}
		if !mayBeEdited(err) {
			return client.Applied{}, e.kept(err, true)
		}
		reason = err
	}
}

// fetch is the resource as it can be written.
func (e *edition) fetch(ctx context.Context) (string, error) {
	body, err := e.cl.Get(ctx, e.kind, e.mesh, e.name)
	if errors.Is(err, client.ErrNotFound) {
		return "", missing(ctx, e.cl, e.kind, e.mesh, e.name)
	}
	if err != nil {
		return "", err
	}
	return normal(body)
}

// create makes the file, which only its owner can read: it may hold a secret.
func (e *edition) create() error {
	f, err := os.CreateTemp("", fmt.Sprintf("atoll-%s-%s-*.yaml", strings.ToLower(e.kind.Info().Name), e.name))
	if err != nil {
		return fmt.Errorf("file for the editor: %w", err)
	}
	e.file = f.Name()
	return f.Close()
}

// advice is what stands above the text.
func (e *edition) advice(reason error) string {
	what := e.kind.Info().Name + " " + e.name
	if e.mesh != "" {
		what += " in mesh " + e.mesh
	}
	if reason == nil {
		return what + ". What you save is applied; leave it unchanged to cancel.\nLines at the top that begin with # are left out."
	}
	return what + " was not applied:\n\n" + reason.Error() + "\n\nChange it and save, or leave it unchanged to give up."
}

// commented makes comments of the lines.
func commented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text + "\n") {
		b.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	return b.String()
}

// uncommented is the text without the comments at the top.
func uncommented(text string) string {
	for strings.HasPrefix(text, "#") {
		_, rest, _ := strings.Cut(text, "\n")
		text = rest
	}
	return text
}

// open writes the text, lets the user edit it, and returns what is in the file.
func (e *edition) open(text string) (string, error) {
	if err := os.WriteFile(e.file, []byte(text), 0o600); err != nil {
		return text, fmt.Errorf("file for the editor: %w", err)
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt) // and leaves them there
	defer signal.Stop(interrupts)
	editor := editorCommand(e.file)
	editor.Stdin, editor.Stdout, editor.Stderr = e.command.InOrStdin(), e.command.OutOrStdout(), e.command.ErrOrStderr()
	if err := editor.Run(); err != nil {
		err = fmt.Errorf("the editor %q failed: %w; $VISUAL or $EDITOR name another", editor.Args[len(editor.Args)-2], err)
		edited, readErr := os.ReadFile(e.file)
		if readErr != nil {
			return text, err
		}
		return string(edited), err
	}
	edited, err := os.ReadFile(e.file)
	if err != nil {
		return text, fmt.Errorf("file of the editor: %w", err)
	}
	return string(edited), nil
}

// editorCommand runs the user's editor, which may come with arguments.
func editorCommand(file string) *exec.Cmd {
	editor := first(os.Getenv("VISUAL"), os.Getenv("EDITOR"))
	if runtime.GOOS == "windows" {
		return exec.Command(first(editor, "notepad"), file)
	}
	return exec.Command("sh", "-c", first(editor, "vi")+` "$1"`, first(editor, "vi"), file)
}

// apply judges the text and sends it, unless somebody else was faster.
func (e *edition) apply(ctx context.Context, text string) (client.Applied, error) {
	var none client.Applied
	input := written{paths: []string{"-"}, input: "the text"}
	documents, err := input.read(ctx, strings.NewReader(text))
	if err != nil {
		return none, faulty{err}
	}
	d := documents[0]
	if len(documents) > 1 || d.Type != e.kind.Info().Name || d.Name != e.name || d.Mesh != e.mesh {
		return none, faulty{errors.New("type, mesh and name have to stay, and it has to be one document; `atoll apply` makes others")}
	}
	now, err := e.fetch(ctx)
	if err != nil {
		return none, err
	}
	if now != e.stored {
		e.stored = now // who saves again has seen this
		return none, faulty{fmt.Errorf("somebody else changed it meanwhile; saving replaces it. It is now:\n\n%s", now)}
	}
	e.document = d
	return e.cl.Apply(ctx, d.Body)
}

// faulty is an error that another text does not have.
type faulty struct{ error }

func (f faulty) Unwrap() error { return f.error }

// mayBeEdited reports whether another text may be taken.
func mayBeEdited(err error) bool {
	var f faulty
	var problem *client.Problem
	return errors.As(err, &f) || errors.As(err, &problem) && (problem.Status == 400 || problem.Status == 409)
}

// kept ends the edition and says where the text is, if there is one to keep.
func (e *edition) kept(err error, keep bool) error {
	if !keep {
		return errors.Join(err, os.Remove(e.file))
	}
	return fmt.Errorf("%w\nWhat you wrote is in %s; `atoll apply -f` takes it from there", err, e.file)
}
