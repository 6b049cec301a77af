{{/* The name of this chart's objects, without the release. */}}
{{- define "pullpath.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of the names of all objects: the release, and the chart's name if the release doesn't contain it. */}}
{{- define "pullpath.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "pullpath.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pullpath.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pullpath.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Names of the pod view end like this, so that it can run beside another release. */}}
{{- define "pullpath.suffix" -}}
{{- if eq .Values.overlay "pod-view" }}-pod-view{{ end }}
{{- end }}

{{/* The name of the DaemonSet, and of its rights and its PriorityClass. */}}
{{- define "pullpath.node" -}}
{{ include "pullpath.fullname" . }}-node{{ include "pullpath.suffix" . }}
{{- end }}

{{/* The name of the cluster role's Deployment, and of its rights. */}}
{{- define "pullpath.cluster" -}}
{{ include "pullpath.fullname" . }}-cluster
{{- end }}

{{- define "pullpath.isAutopilot" -}}
{{- if eq .Values.overlay "cce-autopilot" }}true{{ end }}
{{- end }}

{{/* Whether daemons run on each node, in the node's network. */}}
{{- define "pullpath.hasNodeView" -}}
{{- if not (has .Values.overlay (list "cce-autopilot" "pod-view")) }}true{{ end }}
{{- end }}

{{- define "pullpath.hasCluster" -}}
{{- if and .Values.cluster.enabled (include "pullpath.hasNodeView" .) }}true{{ end }}
{{- end }}

{{/* The overlays for nodes of CCE know their nodes: they mount their files, and use CCE's own pull secret. */}}
{{- define "pullpath.isCceNode" -}}
{{- if has .Values.overlay (list "cce-standard" "cce-turbo") }}true{{ end }}
{{- end }}

{{- define "pullpath.serviceAccount" -}}
{{- if include "pullpath.isAutopilot" . }}
{{- default (include "pullpath.fullname" .) .Values.node.serviceAccount.name }}
{{- else }}
{{- default (include "pullpath.node" .) .Values.node.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "pullpath.clusterServiceAccount" -}}
{{- default (include "pullpath.cluster" .) .Values.cluster.serviceAccount.name }}
{{- end }}

{{- define "pullpath.priorityClass" -}}
{{- default (include "pullpath.node" .) .Values.node.priorityClassName }}
{{- end }}

{{/* Labels that Helm recommends, on every object. app.kubernetes.io/name doesn't follow nameOverride: the program, the
     monitors and the dashboards find daemons by it. */}}
{{- define "pullpath.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: pullpath
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that select pods of one component: (list $ "node"). They never change in a release. */}}
{{- define "pullpath.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: pullpath
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The whole reference of the image. A digest counts before a tag. */}}
{{- define "pullpath.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* Names of the Secrets that Pullpath's own image is pulled with, as a list. CCE has one in each namespace. */}}
{{- define "pullpath.pullSecrets" -}}
{{- $isCce := or (include "pullpath.isCceNode" .) (include "pullpath.isAutopilot" .) -}}
{{- $own := ternary (list (dict "name" "default-secret")) list (not (empty $isCce)) -}}
{{- default $own .Values.imagePullSecrets | toYaml }}
{{- end }}

{{/* The folders of the node that are mounted, as a list. */}}
{{- define "pullpath.folders" -}}
{{- $folders := list -}}
{{- $of := (.Files.Get "files/distributions.yaml" | fromYaml) -}}
{{- if .Values.distribution }}
{{- $folders = (index $of .Values.distribution).folders }}
{{- else if or .Values.nodeFiles.enabled (include "pullpath.isCceNode" .) }}
{{- $folders = $of.kubeadm.folders }}
{{- end }}
{{- if or .Values.nodeFiles.pki (include "pullpath.isCceNode" .) }}
{{- $folders = append $folders (dict "name" "node-pki" "path" "/etc/pki") }}
{{- end }}
{{- toYaml $folders }}
{{- end }}

{{/* The daemon's configuration: that of the overlay, then the distribution's paths, then the keys that belong to rights
     that are on, then .Values.config. */}}
{{- define "pullpath.config" -}}
{{- $config := .Files.Get (printf "files/pullpath/%s.yaml" .Values.overlay) | fromYaml -}}
{{- with .Values.distribution }}
{{- $of := index ($.Files.Get "files/distributions.yaml" | fromYaml) . }}
{{- $config = mergeOverwrite $config (dict "network" (mergeOverwrite (dict "host_root" "/host") $of.network)) }}
{{- end }}
{{- if .Values.podEvents.enabled }}
{{- $config = mergeOverwrite $config (dict "kubernetes" (dict "events" "pods")) }}
{{- end }}
{{- if ne .Values.secrets.mode "none" }}
{{- $config = mergeOverwrite $config (dict "kubernetes" (dict "secrets" .Values.secrets.mode)) }}
{{- end }}
{{- if eq .Values.secrets.mode "named" }}
{{- $config = mergeOverwrite $config (dict "kubernetes" (dict "named_secrets" .Values.secrets.named)) }}
{{- end }}
{{- if .Values.spread.enabled }}
{{- $config = mergeOverwrite $config (dict "spread" (dict "transfers" "leases" "namespace" .Values.spread.namespace)) }}
{{- end }}
{{- mergeOverwrite $config (deepCopy .Values.config) | toYaml }}
{{- end }}

{{/* The configuration of the cluster role, likewise. */}}
{{- define "pullpath.clusterConfig" -}}
{{- $config := .Files.Get "files/pullpath/cluster.yaml" | fromYaml -}}
{{- $config = mergeOverwrite $config (dict "cluster" (dict "lease_name" (include "pullpath.cluster" .))) }}
{{- if .Values.lint.enabled }}
{{- $config = mergeOverwrite $config (dict "cluster" (dict "lint" "on")) }}
{{- end }}
{{- if .Values.lint.secrets }}
{{- $config = mergeOverwrite $config (dict "kubernetes" (dict "secrets" .Values.secrets.mode)) }}
{{- if eq .Values.secrets.mode "named" }}
{{- $config = mergeOverwrite $config (dict "kubernetes" (dict "named_secrets" .Values.secrets.named)) }}
{{- end }}
{{- end }}
{{- mergeOverwrite $config (deepCopy .Values.cluster.config) | toYaml }}
{{- end }}

{{/* The security context of pods; as root, if the node's files need it: (list $ .Values.nodeFiles.asRoot). */}}
{{- define "pullpath.podSecurityContext" -}}
{{- $root := index . 0 -}}
{{- $context := deepCopy $root.Values.podSecurityContext -}}
{{- if index . 1 }}
{{- $context = mergeOverwrite $context (dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0) }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{/* The environment that the program reads, in all pods. */}}
{{- define "pullpath.podEnvironment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{- define "pullpath.addresses" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: HOST_IP
  valueFrom: {fieldRef: {fieldPath: status.hostIP}}
{{- end }}

{{- define "pullpath.ports" -}}
- name: metrics
  containerPort: 9797
  protocol: TCP
{{- end }}

{{- define "pullpath.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 5
{{- end }}

{{/* Pods of Autopilot differ in their name, their annotations and the daemon's --node alone: (list $ "by-snat" values). */}}
{{- define "pullpath.profile" -}}
{{- $root := index . 0 -}}
{{- $profile := index . 1 -}}
{{- $values := index . 2 -}}
{{- $selector := printf "%s\npullpath.io/profile: %s" (include "pullpath.selector" (list $root "node")) $profile -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "pullpath.fullname" $root }}-{{ $profile }}
  namespace: {{ include "pullpath.namespace" $root }}
  labels:
    {{- include "pullpath.labels" $root | nindent 4 }}
    app.kubernetes.io/component: node
    pullpath.io/profile: {{ $profile }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- $selector | nindent 8 }}
        {{- with $root.Values.node.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with mergeOverwrite (dict) ($values.podAnnotations | default dict) $root.Values.node.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "pullpath.serviceAccount" $root }}
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 20
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: topology.kubernetes.io/zone
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
      securityContext:
        {{- include "pullpath.podSecurityContext" (list $root false) | nindent 8 }}
      imagePullSecrets:
        {{- include "pullpath.pullSecrets" $root | nindent 8 }}
      containers:
        - name: pullpath
          image: {{ include "pullpath.image" $root | quote }}
          {{- with $root.Values.image.pullPolicy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          args:
            - run
            - --config=/etc/pullpath/pullpath.yaml
            - --state-dir=/var/lib/pullpath
            - --listen=:9797
            # Autopilot shows no nodes, so results carry the name of the network profile.
            - --node={{ $profile }}
            - --log-format={{ $root.Values.logFormat }}
            {{- with $root.Values.node.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            {{- include "pullpath.podEnvironment" $root | nindent 12 }}
            {{- include "pullpath.addresses" $root | nindent 12 }}
            {{- with $root.Values.node.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- include "pullpath.ports" $root | nindent 12 }}
          # Autopilot lists allowPrivilegeEscalation as unavailable.
          securityContext:
            runAsNonRoot: true
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          resources:
            {{- toYaml $root.Values.autopilot.resources | nindent 12 }}
          {{- include "pullpath.probes" $root | nindent 10 }}
          volumeMounts:
            - {name: config, mountPath: /etc/pullpath, readOnly: true}
            - {name: pull-secret, mountPath: /etc/pull-secret, readOnly: true}
            - {name: state, mountPath: /var/lib/pullpath}
            - {name: podinfo, mountPath: /etc/podinfo, readOnly: true}
            {{- with $root.Values.node.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ include "pullpath.fullname" $root }}}
        # A copy of the workload's pull secret in this namespace. Don't copy CCE's default-secret: copies of it expire.
        - name: pull-secret
          secret: {secretName: {{ $root.Values.autopilot.pullSecret }}, optional: true}
        - name: state
          emptyDir: {sizeLimit: 64Mi}
        # The kubelet updates this file when the pod's annotations change.
        - name: podinfo
          downwardAPI:
            items:
              - path: annotations
                fieldRef: {fieldPath: metadata.annotations}
        {{- with $root.Values.node.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* Labels that give each series its node, for PodMonitor and ServiceMonitor. */}}
{{- define "pullpath.relabelings" -}}
{{- $monitor := .Files.Get "files/monitoring/podmonitor.yaml" | fromYaml -}}
{{- toYaml (index $monitor.spec.podMetricsEndpoints 0).relabelings }}
{{- end }}
