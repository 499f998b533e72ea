// Package systempb is the part of the protobuf between control planes that
// lives in kuma.system.v1alpha1: see package kdspb, whose script generates it
// and which alone uses it.
//
// # Why
//
// The wire has two protobuf packages with clashing message names.
package systempb
