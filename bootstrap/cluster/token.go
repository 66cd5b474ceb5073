package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tokenForm is that of a bootstrap token: a public id, a secret.
var tokenForm = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

const tokenSecretPrefix = "bootstrap-token-"

// NewToken makes a bootstrap token like `kubeadm token create` does: good for finding the cluster and for joining it as a node,
// until ttl (by this machine's clock) has passed. When the answer is lost, a token nobody knows may remain until then.
func (c *Cluster) NewToken(ctx context.Context, ttl time.Duration, description string) (token string, err error) {
	if ttl <= 0 {
		return "", fmt.Errorf("making a bootstrap token: a life of %s; it must be positive", ttl)
	}
	text := strings.ToLower(rand.Text()) // 5 bits a character
	id, secret := text[:6], text[6:22]
	_, err = c.core.Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: tokenSecretPrefix + id, Namespace: metav1.NamespaceSystem},
		Type:       corev1.SecretTypeBootstrapToken,
		Data: map[string][]byte{
			"token-id":                       []byte(id),
			"token-secret":                   []byte(secret),
			"description":                    []byte(description),
			"expiration":                     []byte(time.Now().Add(ttl).UTC().Format(time.RFC3339)),
			"usage-bootstrap-authentication": []byte("true"),
			"usage-bootstrap-signing":        []byte("true"),
			"auth-extra-groups":              []byte("system:bootstrappers:kubeadm:default-node-token"),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("making a bootstrap token: %w", err)
	}
	return id + "." + secret, nil
}

// DeleteToken ends a bootstrap token, which may be gone already. Nodes that joined with it stay.
func (c *Cluster) DeleteToken(ctx context.Context, token string) error {
	parts := tokenForm.FindStringSubmatch(token)
	if parts == nil {
		return errors.New("deleting a bootstrap token: not of the form abcdef.0123456789abcdef") // it may be a secret all the same: not shown
	}
	err := c.core.Secrets(metav1.NamespaceSystem).Delete(ctx, tokenSecretPrefix+parts[1], metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting bootstrap token %s: %w", parts[1], err)
	}
	return nil
}
