{{- define "rosentry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "rosentry.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "rosentry.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "rosentry.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rosentry.releaseLabels" -}}
app.kubernetes.io/name: {{ include "rosentry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The agents alone: the pod of `helm test` is none. */}}
{{- define "rosentry.selectorLabels" -}}
{{ include "rosentry.releaseLabels" . }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "rosentry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "rosentry.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rosentry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "rosentry.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "rosentry.image" -}}
{{- $name := printf "%s/%s" .Values.image.registry .Values.image.repository | trimPrefix "/" }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "rosentry.kubeVersion" -}}
{{- default .Capabilities.KubeVersion.Version .Values.kubeVersion }}
{{- end }}

{{- /* Values that are right by themselves and together make agents that never become ready, or never deliver. */}}
{{- define "rosentry.check" -}}
{{- $keepsFiles := or .Values.events.hostPath .Values.extraVolumeMounts }}
{{- if and (get .Values.config "json") (ne (get .Values.config "json") "-") (not $keepsFiles) }}
{{- fail "config.json names a file, and the agent's root is read-only: set events.hostPath, or mount a folder for it with extraVolumes and extraVolumeMounts" }}
{{- end }}
{{- if include "rosentry.networkSink" . }}
{{- if not $keepsFiles }}
{{- fail "config.syslog and config.otlp keep what waits in a spool, and the agent's root is read-only: set events.hostPath, or mount a folder for it with extraVolumes and extraVolumeMounts" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) }}
{{- fail "networkPolicy.enabled lets the agent reach nobody, not the receiver of config.syslog or config.otlp either: name it, and the cluster's DNS, in networkPolicy.egress" }}
{{- end }}
{{- end }}
{{- if or (hasPrefix "127." .Values.metrics.address) (has .Values.metrics.address (list "localhost" "::1")) }}
{{- fail (printf "metrics.address %s is reached by nobody outside the pod, the kubelet's probes included: leave it at 0.0.0.0, or set ::" .Values.metrics.address) }}
{{- end }}
{{- end }}

{{- define "rosentry.networkSink" -}}
{{- if or (get .Values.config "syslog") (get .Values.config "otlp") }}true{{ end }}
{{- end }}

{{- /* The agent's TOML file: what the user sets, where it listens, and where a sink's spool can be written. */}}
{{- define "rosentry.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if and (include "rosentry.networkSink" .) .Values.events.hostPath (not (get $config "spool-dir")) }}
{{- $_ := set $config "spool-dir" "/var/log/rosentry/spool" }}
{{- end }}
{{- $address := ternary (printf "[%s]" .Values.metrics.address) .Values.metrics.address (contains ":" .Values.metrics.address) }}
{{- $_ := set $config "metrics-listen" (printf "%s:%d" $address (int .Values.metrics.port)) }}
{{- if .Values.rules }}{{ $_ := set $config "rules" "/etc/rosentry/rules.toml" }}{{ end }}
{{- range $key := keys $config | sortAlpha }}
{{- printf "%s = %s\n" $key (get $config $key | toJson) }}
{{- end }}
{{- end }}

{{- define "rosentry.appArmorInSpec" -}}
{{- if and .Values.appArmorProfile (semverCompare ">=1.30-0" (include "rosentry.kubeVersion" .)) }}true{{ end }}
{{- end }}

{{- define "rosentry.podAnnotations" -}}
{{- if and .Values.appArmorProfile (not (include "rosentry.appArmorInSpec" .)) }}
container.apparmor.security.beta.kubernetes.io/agent: {{ include "rosentry.appArmorAnnotation" . }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rosentry.appArmorAnnotation" -}}
{{- $type := .Values.appArmorProfile.type }}
{{- if eq $type "Localhost" }}localhost/{{ .Values.appArmorProfile.localhostProfile }}
{{- else if eq $type "RuntimeDefault" }}runtime/default
{{- else }}unconfined
{{- end }}
{{- end }}

{{- define "rosentry.podSecurityContext" -}}
{{- with .Values.seccompProfile }}
seccompProfile:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if include "rosentry.appArmorInSpec" . }}
appArmorProfile:
  {{- toYaml .Values.appArmorProfile | nindent 2 }}
{{- end }}
{{- with .Values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The places of the node's parts stand here and not in the file, because `rosentry doctor` in the pod looks for them here too; `rosentry posture` there reads the file as well. */}}
{{- define "rosentry.environment" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: ROSENTRY_CONTAINERD_SOCKET
  value: /host/containerd/{{ base .Values.containerd.socket }}
- name: ROSENTRY_CONFIG
  value: /etc/rosentry/rosentry.toml
- name: ROSENTRY_HOST_CGROUP
  value: /host/cgroup
- name: ROSENTRY_PIN
  value: {{ ternary "/host/bpffs" "off" (not (empty .Values.host.bpffs)) | quote }}
- name: ROSENTRY_LOG
  value: {{ .Values.logLevel | quote }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* A folder and not the socket itself, which a restarted containerd replaces; unmounts of the node are to be seen in it, so that
       a container that has ended is not held. */}}
{{- define "rosentry.volumeMounts" -}}
- name: config
  mountPath: /etc/rosentry
  readOnly: true
- name: containerd
  mountPath: /host/containerd
  readOnly: true
  mountPropagation: HostToContainer
- name: cgroup
  mountPath: /host/cgroup
  readOnly: true
{{- if .Values.host.bpffs }}
- name: bpffs
  mountPath: /host/bpffs
{{- end }}
{{- if .Values.events.hostPath }}
- name: events
  mountPath: /var/log/rosentry
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rosentry.volumes" -}}
- name: config
  configMap:
    name: {{ include "rosentry.fullname" . }}
- name: containerd
  hostPath:
    path: {{ dir .Values.containerd.socket }}
    type: Directory
- name: cgroup
  hostPath:
    path: {{ .Values.host.cgroup }}
    type: Directory
{{- with .Values.host.bpffs }}
- name: bpffs
  hostPath:
    path: {{ . }}/rosentry
    type: DirectoryOrCreate
{{- end }}
{{- with .Values.events.hostPath }}
- name: events
  hostPath:
    path: {{ . }}
    type: DirectoryOrCreate
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What a PodMonitor and a ServiceMonitor share; takes the root and the monitor's values. */}}
{{- define "rosentry.endpoint" -}}
{{- $monitor := index . 1 }}
{{- with index . 0 }}
port: metrics
path: /metrics
interval: {{ $monitor.interval }}
scrapeTimeout: {{ $monitor.scrapeTimeout }}
# The series name the pod that was refused, not the agent's.
honorLabels: true
relabelings:
  - targetLabel: job
    replacement: rosentry
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  {{- with .Values.metrics.cluster }}
  - targetLabel: cluster
    replacement: {{ . | quote }}
  {{- end }}
  {{- with $monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
