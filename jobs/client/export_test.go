package client

// SweepPause is the time between two sweeps of a waiter.
var SweepPause = sweepPause
