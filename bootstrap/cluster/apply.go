package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// fieldManager is the name under which the API server remembers which fields are ours.
const fieldManager = "kuryrctl"

// resources are the kinds that manifests may have, and where the API server keeps them.
var resources = map[string]string{
	"v1 Namespace":                                                     "namespaces",
	"v1 Secret":                                                        "secrets",
	"v1 ConfigMap":                                                     "configmaps",
	"v1 Service":                                                       "services",
	"v1 ServiceAccount":                                                "serviceaccounts",
	"apps/v1 Deployment":                                               "deployments",
	"networking.k8s.io/v1 Ingress":                                     "ingresses",
	"networking.k8s.io/v1 IngressClass":                                "ingressclasses",
	"gateway.networking.k8s.io/v1 GatewayClass":                        "gatewayclasses",
	"gateway.networking.k8s.io/v1 Gateway":                             "gateways",
	"apiextensions.k8s.io/v1 CustomResourceDefinition":                 "customresourcedefinitions",
	"rbac.authorization.k8s.io/v1 ClusterRole":                         "clusterroles",
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding":                  "clusterrolebindings",
	"rbac.authorization.k8s.io/v1 Role":                                "roles",
	"rbac.authorization.k8s.io/v1 RoleBinding":                         "rolebindings",
	"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy":        "validatingadmissionpolicies",
	"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
	"admissionregistration.k8s.io/v1 MutatingAdmissionPolicy":          "mutatingadmissionpolicies",
	"admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding":   "mutatingadmissionpolicybindings",
}

// Apply makes the cluster have the objects of a manifest (YAML documents), by server-side apply: fields of others stay as they are.
func (c *Cluster) Apply(ctx context.Context, manifest []byte) error {
	return each("applying", manifest, func(o *unstructured.Unstructured) error {
		_, err := c.patch(ctx, o, "")
		return err
	})
}

// Differs names the objects that [Cluster.Apply] would create or change.
func (c *Cluster) Differs(ctx context.Context, manifest []byte) (names []string, err error) {
	err = each("applying", manifest, func(o *unstructured.Unstructured) error {
		is, err := c.object(ctx, o)
		if err != nil {
			return err
		}
		var would *unstructured.Unstructured
		if is != nil { // of one that is missing, not even its namespace may be there
			if would, err = c.patch(ctx, o, "All"); err != nil {
				return err
			}
		}
		if is == nil || !reflect.DeepEqual(bare(is), bare(would)) {
			names = append(names, o.GetKind()+" "+o.GetName())
		}
		return nil
	})
	return names, err
}

// managedBy is the label, and the value of it, that objects have which [Cluster.Withdraw] may delete.
const managedBy, ourselves = "app.kubernetes.io/managed-by", "kuryrctl"

// Remains names the objects of a manifest that are in the cluster and would be deleted by [Cluster.Withdraw].
func (c *Cluster) Remains(ctx context.Context, manifest []byte) (names []string, err error) {
	err = c.eachOfOurs(ctx, manifest, func(o *unstructured.Unstructured) error {
		names = append(names, o.GetKind()+" "+o.GetName())
		return nil
	})
	return names, err
}

// Withdraw deletes the objects of a manifest that are in no namespace and that kuryrctl has made; a namespace goes with what is in it,
// after a while.
func (c *Cluster) Withdraw(ctx context.Context, manifest []byte) error {
	return c.eachOfOurs(ctx, manifest, func(o *unstructured.Unstructured) error {
		path, err := c.path(o)
		if err == nil {
			_, err = c.send(ctx, http.MethodDelete, path, nil)
		}
		return err
	})
}

func (c *Cluster) eachOfOurs(ctx context.Context, manifest []byte, do func(*unstructured.Unstructured) error) error {
	return each("removing", manifest, func(o *unstructured.Unstructured) error {
		if o.GetNamespace() != "" || o.GetLabels()[managedBy] != ourselves {
			return nil
		}
		is, err := c.object(ctx, o)
		if err != nil || is == nil || is.GetLabels()[managedBy] != ourselves {
			return err
		}
		return do(is)
	})
}

// Secret is the data of a Secret, nil if there is none.
func (c *Cluster) Secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	s, err := c.core.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading secret %s of %s: %w", name, namespace, err)
	}
	return s.Data, nil
}

// Unfinished says what keeps a Deployment from being what was applied last, all of its pods ready, or "".
func (c *Cluster) Unfinished(ctx context.Context, namespace, name string) (string, error) {
	o, err := c.named(ctx, "apps/v1", "Deployment", namespace, name)
	if err != nil {
		return "", err
	}
	if o == nil {
		return "there is no deployment " + name, nil
	}
	var d struct {
		Metadata struct{ Generation int64 }
		Spec     struct{ Replicas int }
		Status   struct {
			ObservedGeneration                           int64
			Replicas, UpdatedReplicas, AvailableReplicas int
			Conditions                                   []struct{ Type, Status, Message string }
		}
	}
	if err := read(o, &d); err != nil {
		return "", fmt.Errorf("reading deployment %s: %w", name, err)
	}
	want := d.Spec.Replicas
	if s := d.Status; s.ObservedGeneration >= d.Metadata.Generation && s.UpdatedReplicas == want && s.AvailableReplicas == want && s.Replicas == want {
		return "", nil
	}
	lacks := fmt.Sprintf("%d of %d pods are ready", min(d.Status.UpdatedReplicas, d.Status.AvailableReplicas), want)
	for _, condition := range d.Status.Conditions {
		if condition.Type == "ReplicaFailure" || condition.Type == "Progressing" && condition.Status == "False" {
			lacks += ": " + condition.Message
		}
	}
	return lacks, nil
}

// External are the addresses at which a Service of type LoadBalancer is reached from outside.
func (c *Cluster) External(ctx context.Context, namespace, name string) (addresses []string, err error) {
	o, err := c.named(ctx, "v1", "Service", namespace, name)
	if err != nil || o == nil {
		return nil, err
	}
	ingress, _, _ := unstructured.NestedSlice(o.Object, "status", "loadBalancer", "ingress")
	for _, i := range ingress {
		if one, ok := i.(map[string]any); ok {
			address, _ := one["ip"].(string)
			host, _ := one["hostname"].(string)
			addresses = append(addresses, cmp.Or(address, host))
		}
	}
	return addresses, nil
}

func (c *Cluster) named(ctx context.Context, version, kind, namespace, name string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	is, err := c.object(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("reading %s %s of %s: %w", kind, name, namespace, err)
	}
	return is, nil
}

// read fills a struct from an object, field by field as encoding/json matches names.
func read(o *unstructured.Unstructured, into any) error {
	text, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// each calls do with every object of a manifest.
func each(doing string, manifest []byte, do func(*unstructured.Unstructured) error) error {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := d.Decode(&o.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		if len(o.Object) == 0 {
			continue // an empty document
		}
		if err := do(o); err != nil {
			return fmt.Errorf("%s %s %s: %w", doing, o.GetKind(), o.GetName(), err)
		}
	}
}

// bare is an object without what the server notes of it.
func bare(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	delete(o.Object, "status")
	return o.Object
}

func (c *Cluster) path(o *unstructured.Unstructured) (string, error) {
	resource, ok := resources[o.GetAPIVersion()+" "+o.GetKind()]
	if !ok {
		return "", errors.New("not a kind that is applied here")
	}
	path := "/apis/" + o.GetAPIVersion()
	if o.GetAPIVersion() == "v1" {
		path = "/api/v1"
	}
	if o.GetNamespace() != "" {
		path += "/namespaces/" + url.PathEscape(o.GetNamespace())
	}
	return path + "/" + resource + "/" + url.PathEscape(o.GetName()), nil
}

func (c *Cluster) patch(ctx context.Context, o *unstructured.Unstructured, dryRun string) (*unstructured.Unstructured, error) {
	path, err := c.path(o)
	if err != nil {
		return nil, err
	}
	body, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	query := url.Values{"fieldManager": {fieldManager}, "force": {"true"}}
	if dryRun != "" {
		query.Set("dryRun", dryRun)
	}
	return c.send(ctx, http.MethodPatch, path+"?"+query.Encode(), body)
}

// object is the object as the cluster has it, or nil.
func (c *Cluster) object(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	path, err := c.path(o)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, http.MethodGet, path, nil)
}

// send makes one request about an object; one that is not there is nil.
func (c *Cluster) send(ctx context.Context, method, path string, body []byte) (*unstructured.Unstructured, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/apply-patch+yaml") // JSON is YAML
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound && method != http.MethodPatch:
		return nil, nil
	case resp.StatusCode >= 300:
		var status struct{ Message string }
		if json.Unmarshal(text, &status) == nil && status.Message != "" {
			return nil, errors.New(status.Message)
		}
		return nil, unexpected(resp.StatusCode)
	}
	o := &unstructured.Unstructured{}
	return o, o.UnmarshalJSON(text)
}
