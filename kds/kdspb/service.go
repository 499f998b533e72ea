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
	StreamXDSConfigs = "/kuma.mesh.v1alpha1.GlobalKDSService/StreamXDSConfigs"
	StreamStats      = "/kuma.mesh.v1alpha1.GlobalKDSService/StreamStats"
	StreamClusters   = "/kuma.mesh.v1alpha1.GlobalKDSService/StreamClusters"
)

// SyncServer serves the data streams. On GlobalToZoneSync it receives
// DeltaDiscoveryRequests and sends responses; on ZoneToGlobalSync it is the
// other way round.
type SyncServer interface {
	GlobalToZoneSync(grpc.ServerStream) error
	ZoneToGlobalSync(grpc.ServerStream) error
}

// GlobalServer answers the pings of zones, and asks them about their Envoys: on
// its streams it sends requests and receives responses.
type GlobalServer interface {
	HealthCheck(context.Context, *ZoneHealthCheckRequest) (*ZoneHealthCheckResponse, error)
	StreamXDSConfigs(grpc.ServerStream) error
	StreamStats(grpc.ServerStream) error
	StreamClusters(grpc.ServerStream) error
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

// GlobalService describes GlobalKDSService.
var GlobalService = grpc.ServiceDesc{
	ServiceName: "kuma.mesh.v1alpha1.GlobalKDSService",
	HandlerType: (*GlobalServer)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "HealthCheck", Handler: healthCheck}},
	Streams: []grpc.StreamDesc{{
		StreamName: "StreamXDSConfigs", ServerStreams: true, ClientStreams: true,
		Handler: func(s any, stream grpc.ServerStream) error { return s.(GlobalServer).StreamXDSConfigs(stream) },
	}, {
		StreamName: "StreamStats", ServerStreams: true, ClientStreams: true,
		Handler: func(s any, stream grpc.ServerStream) error { return s.(GlobalServer).StreamStats(stream) },
	}, {
		StreamName: "StreamClusters", ServerStreams: true, ClientStreams: true,
		Handler: func(s any, stream grpc.ServerStream) error { return s.(GlobalServer).StreamClusters(stream) },
	}},
	Metadata: "kds/kdspb/kds.proto",
}

func healthCheck(s any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
	req := &ZoneHealthCheckRequest{}
	if err := decode(req); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, req any) (any, error) {
		return s.(GlobalServer).HealthCheck(ctx, req.(*ZoneHealthCheckRequest))
	}
	if around == nil {
		return answer(ctx, req)
	}
	return around(ctx, req, &grpc.UnaryServerInfo{Server: s, FullMethod: HealthCheck}, answer)
}
