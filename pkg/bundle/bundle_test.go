package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

const (
	jwt = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50In0.c2lnbmF0dXJlLXZlcnktc2VjcmV0"
	key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIJverysecretbytesGsM1\n-----END EC PRIVATE KEY-----"
)

func unpack(t *testing.T, text []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(b)
	}
}

func part(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

// TestNoSecretLeaves puts secrets in every form into a bundle.
func TestNoSecretLeaves(t *testing.T) {
	var b bytes.Buffer
	w := New(&b, "x", time.Unix(0, 0))
	parts := map[string]string{
		"log":        "level=info msg=\"Authorization: Bearer " + jwt + "\" node=a\nnext line\n",
		"header":     `{"Authorization": "Basic YWRtaW46aHVudGVyMg=="}`,
		"opaque":     "curl -H 'Authorization: Bearer 0123456789abcdef0123.verysecret'",
		"pem":        "before\n" + key + "\nafter",
		"json":       `{"data": "` + strings.ReplaceAll(key, "\n", `\n`) + `", "kept": "yes"}`,
		"cut":        strings.TrimSuffix(key, "-----END EC PRIVATE KEY-----"),
		"kubeconfig": "users:\n- user:\n    client-key-data: TVVTVC1OT1QtTEVBVkU=\n    token: verysecrettoken\n    password: \"hunter2\"\n",
		"secret":     `{"token":"verysecrettoken","note":"x"}`,
	}
	for name, text := range parts {
		if err := w.Add(name, part(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := unpack(t, b.Bytes())
	for name, text := range got {
		for _, secret := range []string{"verysecret", "c2lnbmF0dXJl", "YWRtaW46", "TVVTVC1OT1Q", "hunter2", "eyJpc3Mi"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s:\n%s", name, secret, text)
			}
		}
		if !strings.Contains(text, removed) {
			t.Errorf("%s does not say that something was removed:\n%s", name, text)
		}
	}
	for name, kept := range map[string]string{"x/log": "next line", "x/pem": "after", "x/json": `"kept": "yes"`, "x/secret": `"note":"x"`} {
		if !strings.Contains(got[name], kept) {
			t.Errorf("%s lost %q:\n%s", name, kept, got[name])
		}
	}
}

func TestWhatIsNoSecretStays(t *testing.T) {
	for _, text := range []string{
		"--kube-token-file=/var/run/secrets/kubernetes.io/serviceaccount/token", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
		`"private_key": "/etc/portolan/tls/tls.key"`, "cookie=0x0, duration=1.2s, table=0, n_packets=5",
	} {
		if got := string(Redact([]byte(text))); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestCompressedPartsStayWholeOrAreLeftOut(t *testing.T) {
	pack := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	var b bytes.Buffer
	w := New(&b, "x", time.Unix(0, 0))
	clean, foul := pack("a recording"), pack("a recording with "+key)
	for name, text := range map[string]string{"clean": clean, "foul": foul} {
		if err := w.Add(name, part(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := unpack(t, b.Bytes())
	if got["x/clean"] != clean {
		t.Error("a recording was changed")
	}
	if _, there := got["x/foul"]; there || !strings.Contains(got["x/foul.error"], "left out") {
		t.Errorf("parts %v", got)
	}
}

func TestAPartThatCannotBeHadSaysWhy(t *testing.T) {
	var b bytes.Buffer
	w := New(&b, "x", time.Unix(0, 0))
	err := w.Add("nodes/a/nb.json", func() (io.ReadCloser, error) { return nil, errors.New("connection refused, token=verysecret") })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := unpack(t, b.Bytes())["x/nodes/a/nb.json.error"]
	if !strings.Contains(got, "connection refused") || strings.Contains(got, "verysecret") || w.Errors != 1 {
		t.Errorf("%q, %d errors", got, w.Errors)
	}
}
