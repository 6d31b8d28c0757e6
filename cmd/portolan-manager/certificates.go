package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/pki"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// The Secrets of a global zone. Only this process may read the first; the others
// are mounted by the pods that they are named for, and kubelet brings them up to
// date there.
const (
	authoritySecret  = "portolan-ca"
	serverSecret     = "portolan-db-tls"
	controllerSecret = "portolan-controller-tls"
	nodeSecret       = "portolan-node-tls"
)

const (
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 90 * 24 * time.Hour
	// issueInterval is how soon a Secret that somebody has removed is back.
	issueInterval = 5 * time.Minute
	issueRetry    = 5 * time.Second
)

// issuer keeps the certificates by which databases, controller and nodes of a
// global zone know each other. There are two authorities, so that a node's
// certificate opens the SB database and no other.
type issuer struct {
	client    kube.Client
	namespace string
	servers   []netip.Addr // of the databases
	life      time.Duration
	log       *slog.Logger
	now       func() time.Time
}

// authorities are the keys that everything hangs on.
type authorities struct {
	central *pki.Authority // of the databases' servers, the controller and northd
	nodes   *pki.Authority // of every ovn-controller
}

// wanted is one Secret as it should be.
type wanted struct {
	secret string
	by     *pki.Authority
	pki.Request
	trust map[string][]byte // files with authorities
}

func (i *issuer) wanted(a authorities) []wanted {
	central := map[string][]byte{zone.AuthorityFile: pki.Bundle(a.central)}
	everyone := map[string][]byte{zone.AuthorityFile: pki.Bundle(a.central), zone.EveryoneFile: pki.Bundle(a.central, a.nodes)}
	return []wanted{
		{serverSecret, a.central, pki.Request{Name: "portolan-db", Addresses: i.servers, Life: i.life}, everyone},
		{controllerSecret, a.central, pki.Request{Name: "portolan-controller", Life: i.life}, central},
		{nodeSecret, a.nodes, pki.Request{Name: "portolan-node", Life: i.life}, central},
	}
}

// run issues until ctx ends. What fails is tried again, and stops nobody else.
func (i *issuer) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := min(issueInterval, i.life/10)
		if err := i.round(ctx); err != nil && ctx.Err() == nil {
			i.log.Warn("certificates not all issued, will retry", "err", err)
			wait = issueRetry
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
}

// round looks at every Secret once.
func (i *issuer) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	a, err := i.authorities(ctx)
	if err != nil {
		return err
	}
	for _, w := range i.wanted(a) {
		if err := i.keep(ctx, w); err != nil {
			return fmt.Errorf("secret %s: %w", w.secret, err)
		}
	}
	return nil
}

// authorities reads the keys, or makes them where there are none.
func (i *issuer) authorities(ctx context.Context) (authorities, error) {
	var a authorities
	s, err := i.client.CoreV1().Secrets(i.namespace).Get(ctx, authoritySecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return i.found(ctx)
	}
	if err != nil {
		return a, err
	}
	for name, to := range map[string]**pki.Authority{"central": &a.central, "nodes": &a.nodes} {
		*to, err = pki.ParseAuthority(pki.Pair{Cert: s.Data[name+".crt"], Key: s.Data[name+".key"]})
		if err == nil && (*to).Expired(i.now()) {
			err = fmt.Errorf("expired")
		}
		if err != nil {
			return a, fmt.Errorf("secret %s: %s: %w; delete the Secret to have new ones: every certificate is then issued anew", authoritySecret, name, err)
		}
	}
	return a, nil
}

// found makes new authorities.
func (i *issuer) found(ctx context.Context) (a authorities, err error) {
	if a.central, err = pki.NewAuthority("portolan-central", i.now(), authorityLife); err != nil {
		return a, err
	}
	if a.nodes, err = pki.NewAuthority("portolan-nodes", i.now(), authorityLife); err != nil {
		return a, err
	}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: authoritySecret, Namespace: i.namespace},
		Data: map[string][]byte{
			"central.crt": a.central.Cert, "central.key": a.central.Key, "nodes.crt": a.nodes.Cert, "nodes.key": a.nodes.Key,
		},
	}
	_, err = i.client.CoreV1().Secrets(i.namespace).Create(ctx, s, metav1.CreateOptions{})
	if err == nil {
		i.log.Info("authorities made", "secret", authoritySecret)
	}
	return a, err
}

// keep makes one Secret what it should be, and writes nothing where it is.
func (i *issuer) keep(ctx context.Context, w wanted) error {
	secrets := i.client.CoreV1().Secrets(i.namespace)
	s, err := secrets.Get(ctx, w.secret, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	if missing {
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: w.secret, Namespace: i.namespace}, Type: corev1.SecretTypeTLS}
	}
	if !w.stale(s, i.now()) {
		return nil
	}
	pair, err := w.by.Issue(w.Request, i.now())
	if err != nil {
		return err
	}
	s.Data = map[string][]byte{zone.CertFile: pair.Cert, zone.KeyFile: pair.Key}
	for name, text := range w.trust {
		s.Data[name] = text
	}
	if missing {
		_, err = secrets.Create(ctx, s, metav1.CreateOptions{})
	} else {
		_, err = secrets.Update(ctx, s, metav1.UpdateOptions{})
	}
	if err == nil {
		i.log.Info("certificate issued", "secret", w.secret, "name", w.Name, "until", i.now().Add(w.Life).UTC().Format(time.RFC3339))
	}
	return err
}

// stale reports whether a Secret has to be written.
func (w wanted) stale(s *corev1.Secret, now time.Time) bool {
	for name, text := range w.trust {
		if !bytes.Equal(s.Data[name], text) {
			return true
		}
	}
	return w.by.Due(pki.Pair{Cert: s.Data[zone.CertFile], Key: s.Data[zone.KeyFile]}, w.Request, now)
}
