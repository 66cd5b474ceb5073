package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// fieldManager is the name under which the API server remembers which fields are ours.
const fieldManager = "kuryrctl"

// resources are the kinds that manifests may have, and where the API server keeps them.
var resources = map[string]string{
	"v1 ServiceAccount":  "serviceaccounts",
	"v1 ConfigMap":       "configmaps",
	"v1 Service":         "services",
	"apps/v1 Deployment": "deployments",
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
	return each(manifest, func(o *unstructured.Unstructured) error {
		_, err := c.patch(ctx, o, "")
		return err
	})
}

// Differs names the objects that [Cluster.Apply] would create or change.
func (c *Cluster) Differs(ctx context.Context, manifest []byte) (names []string, err error) {
	err = each(manifest, func(o *unstructured.Unstructured) error {
		would, err := c.patch(ctx, o, "All")
		if err != nil {
			return err
		}
		is, err := c.object(ctx, o)
		if err != nil {
			return err
		}
		if is == nil || !reflect.DeepEqual(bare(is), bare(would)) {
			names = append(names, o.GetKind()+" "+o.GetName())
		}
		return nil
	})
	return names, err
}

// each calls do with every object of a manifest.
func each(manifest []byte, do func(*unstructured.Unstructured) error) error {
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
			return fmt.Errorf("applying %s %s: %w", o.GetKind(), o.GetName(), err)
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
	req.Header.Set("Content-Type", "application/apply-patch+yaml") // JSON is YAML
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
	case resp.StatusCode == http.StatusNotFound && method == http.MethodGet:
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
