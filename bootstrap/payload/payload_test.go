package payload_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kuryrctl/kuryrctl/bootstrap/payload"
)

func TestAnArchitectureThatWasNotBuiltIsNamed(t *testing.T) {
	_, err := payload.Archive("vax")
	if err == nil || !strings.Contains(err.Error(), "vax") || !strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v", err)
	}
}

func TestTheGatewayAPIIsOfTheVersionThatTheRouterIsBuiltWith(t *testing.T) {
	manifest, err := payload.GatewayAPI()
	if err != nil { // built without make
		if !strings.Contains(err.Error(), "make build") {
			t.Error(err)
		}
		return
	}
	pins, err := os.ReadFile("../bundle/router/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	pin := regexp.MustCompile(`sigs\.k8s\.io/gateway-api (v\S+)`).FindSubmatch(pins)
	if pin == nil {
		t.Fatal("the router is built without the Gateway API")
	}
	of := map[string]bool{}
	for _, definition := range strings.Split(string(manifest), "\n---\n") {
		version := regexp.MustCompile(`gateway\.networking\.k8s\.io/bundle-version: (\S+)`).FindStringSubmatch(definition)
		name := regexp.MustCompile(`(?m)^  name: (\S+)\.gateway\.networking\.k8s\.io$`).FindStringSubmatch(definition)
		if version == nil || version[1] != string(pin[1]) || name == nil || !strings.Contains(definition, "gateway.networking.k8s.io/channel: standard") {
			t.Errorf("of version %v, want %s: %.400s", version, pin[1], definition)
			continue
		}
		of[name[1]] = true
	}
	for _, kind := range []string{"gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants", "backendtlspolicies"} {
		if !of[kind] {
			t.Errorf("there is no definition of %s", kind)
		}
	}
}
