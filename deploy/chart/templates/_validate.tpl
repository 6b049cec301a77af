{{/* Combinations that values.schema.json can't express. */}}
{{- define "pullpath.validate" -}}
{{- if and .Values.distribution (ne .Values.overlay "any") }}
{{- fail (printf "distribution: %s needs overlay: any, not %s, which has its own paths" .Values.distribution .Values.overlay) }}
{{- end }}
{{- if and (eq .Values.overlay "pod-view") (or .Values.nodeFiles.enabled .Values.nodeFiles.pki .Values.nodeFiles.asRoot) }}
{{- fail "nodeFiles: the pod view mounts no files of the node; use overlay: any" }}
{{- end }}
{{- if include "pullpath.isAutopilot" . }}
{{- range $name, $on := dict "podEvents.enabled" .Values.podEvents.enabled "spread.enabled" .Values.spread.enabled "secrets.mode" (ne .Values.secrets.mode "none") "nodeFiles.enabled" .Values.nodeFiles.enabled "nodeFiles.pki" .Values.nodeFiles.pki "nodeFiles.asRoot" .Values.nodeFiles.asRoot }}
{{- if $on }}
{{- fail (printf "%s: daemons have no access to the API server or to nodes with overlay: cce-autopilot" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.lint.enabled (not (include "pullpath.hasCluster" .)) }}
{{- fail "lint.enabled: it is the cluster role that lints; cluster.enabled is false, or the overlay has none" }}
{{- end }}
{{- if eq .Values.secrets.mode "named" }}
{{- if not .Values.secrets.named }}
{{- fail "secrets.mode: named needs secrets.named, a list of {namespace, names}" }}
{{- end }}
{{- $seen := dict }}
{{- range .Values.secrets.named }}
{{- if hasKey $seen .namespace }}
{{- fail (printf "secrets.named: the namespace %s is there twice; list all its names together" .namespace) }}
{{- end }}
{{- $_ := set $seen .namespace true }}
{{- end }}
{{- end }}
{{- if and .Values.lint.secrets (or (not .Values.lint.enabled) (eq .Values.secrets.mode "none")) }}
{{- fail "lint.secrets needs lint.enabled, and secrets.mode: named or discovered" }}
{{- end }}
{{- end }}
