// A stand-in for the livenessprobe sidecar, whose module no Go module proxy serves (its path lacks the /v2 of its
// versions). It takes the flags that the chart gives, and does what they say: GET /healthz asks the driver's Probe, and
// anything but "ready" is an error 500; until the driver has told its name once, nobody answers at all.
package main

import (
	"context"
	"flag"
	"net/http"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"k8s.io/klog/v2"
)

func main() {
	klog.InitFlags(nil)
	address := flag.String("csi-address", "/run/csi/socket", "the driver's socket")
	endpoint := flag.String("http-endpoint", "", "where /healthz listens, as 127.0.0.1:9808")
	timeout := flag.Duration("probe-timeout", 3*time.Second, "for one Probe")
	flag.Parse()
	conn, err := connection.ConnectWithoutMetrics(context.Background(), *address, connection.WithTimeout(0))
	if err != nil {
		klog.Fatal(err)
	}
	if _, err := rpc.GetDriverName(context.Background(), conn); err != nil {
		klog.Fatalf("GetPluginInfo: %s", err)
	}
	conn.Close()
	http.HandleFunc("/healthz", func(response http.ResponseWriter, request *http.Request) {
		if err := probe(request.Context(), *address, *timeout); err != "" {
			klog.Warningf("not ready: %s", err)
			http.Error(response, err, http.StatusInternalServerError)
		}
	})
	klog.Fatal(http.ListenAndServe(*endpoint, nil))
}

// probe returns what is wrong, or nothing.
func probe(parent context.Context, address string, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(parent, timeout)
	defer cancel()
	conn, err := connection.ConnectWithoutMetrics(ctx, address, connection.WithTimeout(timeout))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	ready, err := rpc.Probe(ctx, conn)
	if err != nil {
		return err.Error()
	}
	if !ready {
		return "the driver answers, and is not ready"
	}
	return ""
}
