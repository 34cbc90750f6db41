package main

import "context"

func examine(ctx context.Context, c *call) int { return exitUnable }
