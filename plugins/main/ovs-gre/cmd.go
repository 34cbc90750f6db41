package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
)

// verb bounds a verb by the configuration's timeout and gives its error a CNI code.
func verb(f func(context.Context, attach.Request, error) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		c, invalid := config.Parse(args.StdinData)
		inUse = c.CNIVersion
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		return cni.From(f(ctx, attach.Request{
			Config: c, Attachment: config.Attachment{ContainerID: args.ContainerID, IfName: args.IfName},
			Netns: args.Netns, Args: args.Args, HostNetns: os.Getenv("CNI_NETNS_OVERRIDE") != "",
		}, invalid))
	}
}

func add(ctx context.Context, r attach.Request, invalid error) error {
	if invalid != nil {
		return invalid
	}
	res, err := attach.Add(ctx, r)
	if err != nil {
		return err
	}
	return types.PrintResult(res, r.Config.CNIVersion)
}

// del works with whatever is left of a configuration.
func del(ctx context.Context, r attach.Request, invalid error) error {
	if errors.Is(invalid, config.ErrDecode) {
		return invalid
	}
	return attach.Del(ctx, r)
}

func check(ctx context.Context, r attach.Request, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if r.Config.PrevResult == nil {
		return fmt.Errorf("%w: prevResult: missing: CHECK needs the result of ADD", config.ErrInvalid)
	}
	_, prev, err := cni.ReadResult(r.Config.CNIVersion, r.Config.PrevResult)
	if err != nil {
		return fmt.Errorf("%w: prevResult: %w", config.ErrInvalid, err)
	}
	return attach.Check(ctx, r, prev)
}

func gc(ctx context.Context, r attach.Request, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if r.Config.Valid == nil {
		fmt.Fprintln(os.Stderr, "ovs-gre: GC without cni.dev/valid-attachments: nothing removed")
		return nil
	}
	return attach.GC(ctx, r.Config, *r.Config.Valid)
}

func status(args *skel.CmdArgs) error {
	c, err := config.Parse(args.StdinData)
	inUse = c.CNIVersion
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		err = attach.Status(ctx, c)
	}
	return cni.FromStatus(err)
}
