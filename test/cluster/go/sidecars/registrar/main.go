// A stand-in for the node-driver-registrar sidecar, whose module no Go module proxy serves (its path lacks the /v2 of its
// versions). It takes the flags that the chart gives, and speaks kubelet's own plugin registration API: kubelet finds the
// socket, asks GetInfo, registers the driver by its NodeGetInfo, and says how that went. A refusal ends the program with
// kubelet's words, as it ends the original; at its own end it takes its socket away, as the original does, and kubelet
// then takes the driver for gone.
package main

import (
	"context"
	"flag"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const folder = "/registration"

type server struct {
	registration.UnimplementedRegistrationServer
	name     string
	endpoint string
}

func (s server) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	klog.Infof("kubelet asks for %s", s.name)
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              s.name,
		Endpoint:          s.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (s server) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		klog.Errorf("kubelet refused the registration: %s", status.Error)
		klog.Flush()
		os.Exit(1)
	}
	klog.Info("registered")
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	klog.InitFlags(nil)
	address := flag.String("csi-address", "/csi/csi.sock", "the driver's socket, as this container sees it")
	endpoint := flag.String("kubelet-registration-path", "", "the driver's socket, as kubelet sees it")
	health := flag.String("http-endpoint", "", "where /healthz listens, as 127.0.0.1:9809")
	timeout := flag.Duration("timeout", time.Second, "for one call of the driver")
	flag.Parse()

	ctx := context.Background()
	conn, err := connection.ConnectWithoutMetrics(ctx, *address, connection.WithTimeout(0))
	if err != nil {
		klog.Fatal(err)
	}
	limited, cancel := context.WithTimeout(ctx, *timeout)
	name, err := rpc.GetDriverName(limited, conn)
	cancel()
	if err != nil {
		klog.Fatalf("GetPluginInfo: %s", err)
	}
	conn.Close()

	socket := filepath.Join(folder, name+"-reg.sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		klog.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		klog.Fatal(err)
	}
	// Healthy as long as kubelet can find it.
	http.HandleFunc("/healthz", func(response http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(socket); err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
		}
	})
	if *health != "" {
		go func() { klog.Fatal(http.ListenAndServe(*health, nil)) }()
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
			klog.Fatal(err)
		}
		os.Exit(0)
	}()
	grpcServer := grpc.NewServer()
	registration.RegisterRegistrationServer(grpcServer, server{name: name, endpoint: *endpoint})
	klog.Fatal(grpcServer.Serve(listener))
}
