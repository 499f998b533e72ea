// Package kdspb is the protobuf that control planes exchange: the envelope of a
// resource, the specs of the kinds that cross as protobuf, and the gRPC
// services (kuma.mesh.v1alpha1; package systempb holds kuma.system.v1alpha1).
//
// It owns the field numbers and the conversion between such a spec and its
// JSON. Package kds speaks with it; nothing else needs it. It knows neither
// rows nor labels and never does I/O.
//
//	spec JSON ──ToProto──▶ message ──▶ Any ──▶ KumaResource ──▶ wire
//	spec JSON ◀──ToJSON─── message ◀── Any ◀── KumaResource ◀── wire
//
// # Why
//
// The model of a kind is a plain Go struct in package api; its protobuf exists
// on the wire only. Both sides have the same JSON, so JSON is the bridge, and a
// new field is one line in each. Fields that newer peers no longer send are
// declared, because what is declared survives: what is not can only be reported.
//
// The services are written by hand: their messages are Envoy's, whose .proto
// files are no part of this module, and five methods do not need a generator.
//
// Regenerate the *.pb.go with the script generate in this folder.
package kdspb
