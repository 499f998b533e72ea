package kdspb

import (
	"context"

	"google.golang.org/grpc"
)

// Full names of the methods. Global serves all; the zone dials.
const (
	GlobalToZoneSync = "/kuma.mesh.v1alpha1.KDSSyncService/GlobalToZoneSync"
	ZoneToGlobalSync = "/kuma.mesh.v1alpha1.KDSSyncService/ZoneToGlobalSync"
	HealthCheck      = "/kuma.mesh.v1alpha1.GlobalKDSService/HealthCheck"
)

// SyncServer serves the data streams. On GlobalToZoneSync it receives
// DeltaDiscoveryRequests and sends responses; on ZoneToGlobalSync it is the
// other way round.
type SyncServer interface {
	GlobalToZoneSync(grpc.ServerStream) error
	ZoneToGlobalSync(grpc.ServerStream) error
}

// HealthServer answers the pings of zones.
type HealthServer interface {
	HealthCheck(context.Context, *ZoneHealthCheckRequest) (*ZoneHealthCheckResponse, error)
}

// SyncService describes KDSSyncService.
var SyncService = grpc.ServiceDesc{
	ServiceName: "kuma.mesh.v1alpha1.KDSSyncService",
	HandlerType: (*SyncServer)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "GlobalToZoneSync", ServerStreams: true, ClientStreams: true,
		Handler: func(s any, stream grpc.ServerStream) error { return s.(SyncServer).GlobalToZoneSync(stream) },
	}, {
		StreamName: "ZoneToGlobalSync", ServerStreams: true, ClientStreams: true,
		Handler: func(s any, stream grpc.ServerStream) error { return s.(SyncServer).ZoneToGlobalSync(stream) },
	}},
	Metadata: "kds/kdspb/kds.proto",
}

// HealthService describes the part of GlobalKDSService that is served. Its
// streams for Envoy's administration are not: a zone tolerates Unimplemented.
var HealthService = grpc.ServiceDesc{
	ServiceName: "kuma.mesh.v1alpha1.GlobalKDSService",
	HandlerType: (*HealthServer)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "HealthCheck", Handler: healthCheck}},
	Metadata:    "kds/kdspb/kds.proto",
}

func healthCheck(s any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
	req := &ZoneHealthCheckRequest{}
	if err := decode(req); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, req any) (any, error) {
		return s.(HealthServer).HealthCheck(ctx, req.(*ZoneHealthCheckRequest))
	}
	if around == nil {
		return answer(ctx, req)
	}
	return around(ctx, req, &grpc.UnaryServerInfo{Server: s, FullMethod: HealthCheck}, answer)
}
