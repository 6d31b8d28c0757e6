// Package reach answers: how is the agent of a node asked, from where I am?
//
//	on the node     portolan ──────────────────────────────> /run/portolan/inspect.sock ── agent
//	anywhere else   portolan ──> API server ──exec──> `portolan api --pipe` in the agent's pod ──┘
//
// Either way an agent is an http.RoundTripper: what is asked, and what is answered,
// is package inspect's business. The API server's exec needs no port of ours, no
// certificate and no account but the person's own: who may exec into the
// namespace portolan may ask, and nobody else (decision 36).
//
// Inputs are flags (Options) and a kubeconfig; nothing is written anywhere.
package reach
