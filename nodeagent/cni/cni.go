// Package cni is the CNI plugin: it asks the node's daemon which subport a pod has, and makes, checks and removes the pod's interface.
//
// It owns what CNI says: the configuration on standard input, CNI_ARGS, results and error codes; and it is its own bandwidth plugin, since the
// usual one knows interfaces with a peer on the host only. It refuses to know Kubernetes and
// OpenStack, and to need the daemon when a pod goes away: then it leaves word on disk.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/kuryrctl/kuryrctl/nodeagent/link"
	"github.com/kuryrctl/kuryrctl/nodeagent/socket"
)

const (
	addPatience = 80 * time.Second // more than the daemon's, so that the daemon's reason is heard
	patience    = 5 * time.Second  // for all that needs no waiting
)

// Versions are those of the CNI specification that the plugin speaks.
func Versions() version.PluginInfo {
	return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// Funcs is what the plugin does, for skel.PluginMainFuncs. Results are written to stdout.
func Funcs(stdout io.Writer) skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    configured(func(c conf, a *skel.CmdArgs) error { return add(c, a, stdout) }, errRefused),
		Del:    configured(del, nil),
		Check:  configured(check, errRefused),
		GC:     configured(gc, nil),
		Status: configured(status, nil),
	}
}

// configured is an operation with its configuration read. On a node that refuses pods it says so where a pod is wanted, and has nothing to do
// otherwise.
func configured(do func(conf, *skel.CmdArgs) error, refused func(conf) error) func(*skel.CmdArgs) error {
	return func(a *skel.CmdArgs) error {
		c, err := parseConf(a.StdinData)
		switch {
		case err != nil:
			return err
		case c.Refuse == "":
			return do(c, a)
		case refused == nil:
			return nil
		}
		return refused(c)
	}
}

func errRefused(c conf) error { return types.NewError(types.ErrPluginNotAvailable, c.Refuse, "") }

// conf is the plugin's part of the network configuration.
type conf struct {
	types.PluginConf
	Socket string `json:"socket"` // of the daemon
	State  string `json:"state"`  // directory of the daemon
	Refuse string `json:"refuse"` // why this node has no pods of ours: a sentence; it has no daemon either

	// What a runtime adds for the capability "bandwidth". Its bursts are not heeded: runtimes of Kubernetes give half a gigabyte, which is no limit.
	RuntimeConfig struct {
		Bandwidth struct {
			IngressRate uint64 `json:"ingressRate"` // bits per second, zero for no limit; received by the pod
			EgressRate  uint64 `json:"egressRate"`
		} `json:"bandwidth"`
	} `json:"runtimeConfig"`
}

func parseConf(stdin []byte) (c conf, err error) {
	if err := json.Unmarshal(stdin, &c); err != nil {
		return conf{}, types.NewError(types.ErrDecodingFailure, "reading the network configuration: "+err.Error(), "")
	}
	for _, p := range []struct {
		key      string
		value    *string
		fallback string
	}{{"socket", &c.Socket, socket.DefaultPath}, {"state", &c.State, socket.DefaultState}} {
		if *p.value == "" {
			*p.value = p.fallback
		}
		if !filepath.IsAbs(*p.value) {
			return conf{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("%s %q in the network configuration is no absolute path", p.key, *p.value), "")
		}
	}
	return c, nil
}

// pod is what a runtime of Kubernetes says in CNI_ARGS.
type pod struct{ namespace, name, uid string }

// parseArgs reads CNI_ARGS, such as "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=demo". Words of others are passed over.
func parseArgs(args string) (p pod, err error) {
	for word := range strings.SplitSeq(args, ";") {
		key, value, ok := strings.Cut(word, "=")
		if !ok && word != "" {
			return pod{}, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("%q in CNI_ARGS is not KEY=VALUE", word), "")
		}
		switch key {
		case "K8S_POD_NAMESPACE":
			p.namespace = value
		case "K8S_POD_NAME":
			p.name = value
		case "K8S_POD_UID":
			p.uid = value
		}
	}
	if p.namespace == "" || p.name == "" {
		return pod{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS names no pod: K8S_POD_NAMESPACE and K8S_POD_NAME are needed", "")
	}
	return p, nil
}

func attachment(a *skel.CmdArgs) socket.Attachment {
	return socket.Attachment{Container: a.ContainerID, IfName: a.IfName}
}

func place(a *skel.CmdArgs) link.Place { return link.Place{Netns: a.Netns, Name: a.IfName} }

func add(c conf, a *skel.CmdArgs, stdout io.Writer) error {
	p, err := parseArgs(a.Args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), addPatience)
	defer cancel()
	daemon := socket.NewClient(c.Socket)
	request := socket.Add{Attachment: attachment(a), Network: c.Name, Namespace: p.namespace, Pod: p.name, UID: p.uid, Netns: a.Netns}
	added, err := daemon.Add(ctx, request)
	if err != nil {
		return tell(err)
	}
	err = link.Attach(added.Interface, place(a), added.Stale)
	if err == nil {
		limit := c.RuntimeConfig.Bandwidth
		err = link.Limit(place(a), link.Limits{Ingress: limit.IngressRate, Egress: limit.EgressRate})
	}
	if err != nil {
		// The runtime will send DEL, or a new sandbox's ADD; the subport need not wait for either.
		if gone := link.Detach(place(a)); gone == nil {
			err = errors.Join(err, giveBack(c, daemon, request.Attachment))
		}
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	r, err := result(added.Interface, place(a)).GetAsVersion(c.CNIVersion)
	if err != nil {
		return types.NewError(types.ErrIncompatibleCNIVersion, err.Error(), "")
	}
	return r.PrintTo(stdout)
}

func result(i link.Interface, at link.Place) *current.Result {
	r := &current.Result{CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: at.Name, Mac: i.MAC, Mtu: i.MTU, Sandbox: at.Netns}}}
	for _, a := range i.Addresses {
		ip := &current.IPConfig{Interface: new(int), Address: net.IPNet{IP: a.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), a.Prefix.Addr().BitLen())}}
		if a.Gateway.IsValid() {
			ip.Gateway = a.Gateway.AsSlice()
			all := net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
			if a.Gateway.Is6() {
				all = net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
			}
			r.Routes = append(r.Routes, &types.Route{Dst: all, GW: ip.Gateway})
		}
		r.IPs = append(r.IPs, ip)
	}
	return r
}

// tell gives an error of the daemon the code that makes a runtime try again.
func tell(err error) error {
	return types.NewError(types.ErrTryAgainLater, err.Error(), "")
}

// del needs the daemon in no case: a pod that cannot go away keeps its node from being drained.
func del(c conf, a *skel.CmdArgs) error {
	if a.Netns != "" {
		if err := link.Detach(place(a)); err != nil {
			return types.NewError(types.ErrInternal, err.Error(), "")
		}
	}
	if err := giveBack(c, socket.NewClient(c.Socket), attachment(a)); err != nil {
		return types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	return nil
}

func giveBack(c conf, daemon *socket.Client, a socket.Attachment) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := daemon.Del(ctx, a)
	if err == nil {
		return nil
	}
	if buried := socket.Bury(c.State, a); buried != nil {
		return errors.Join(err, buried)
	}
	return nil
}

func check(c conf, a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	i, err := socket.NewClient(c.Socket).Allocation(ctx, attachment(a))
	var no *socket.Refusal
	if errors.As(err, &no) && no.Code == 404 {
		return types.NewError(types.ErrUnknownContainer, err.Error(), "")
	}
	if err != nil {
		return tell(err)
	}
	if err := link.Check(i, place(a)); err != nil {
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	return nil
}

func gc(c conf, a *skel.CmdArgs) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(a.StdinData, &given); err != nil || given["cni.dev/valid-attachments"] == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "GC without cni.dev/valid-attachments would remove every pod's interface", "")
	}
	valid := make([]socket.Attachment, 0, len(c.ValidAttachments))
	for _, v := range c.ValidAttachments {
		valid = append(valid, socket.Attachment{Container: v.ContainerID, IfName: v.IfName})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	collected, err := socket.NewClient(c.Socket).GC(ctx, socket.GC{Network: c.Name, Valid: valid})
	if err != nil {
		return tell(err)
	}
	var errs []error
	for _, p := range collected.Places {
		errs = append(errs, link.Detach(p))
	}
	if err := errors.Join(errs...); err != nil {
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	return nil
}

func status(c conf, _ *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := socket.NewClient(c.Socket).Status(ctx)
	if err == nil && s.NotReady != "" {
		err = errors.New(s.NotReady)
	}
	if err == nil {
		_, err = link.Parent(s.ParentMAC)
	}
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return nil
}
