{{- define "chartwire.name" -}}
{{- $full := contains "chartwire" .Release.Name | ternary .Release.Name (printf "%s-chartwire" .Release.Name) -}}
{{- $full | trunc 45 | trimSuffix "-" -}}
{{- end }}

{{- define "chartwire.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "chartwire.selector" . }}
{{- end }}

{{- define "chartwire.selector" -}}
app.kubernetes.io/name: chartwire
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The deployments of this mode, with spaces between. */}}
{{- define "chartwire.roles" -}}
{{ eq .Values.mode "workers" | ternary "worker" "api ingest deliver" }}
{{- end }}

{{/* The key in the Secret without which nothing starts. */}}
{{- define "chartwire.key" -}}
{{ eq .Values.mode "workers" | ternary "transport.key" "master.key" }}
{{- end }}

{{- define "chartwire.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* What every pod of ours is allowed: as little as can be. */}}
{{- define "chartwire.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "chartwire.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
Kubernetes lets the pod's group read a Secret, and Chartwire refuses a key that others can read: it is copied into
memory, for its owner alone.
*/}}
{{- define "chartwire.takeKey" -}}
- name: take-key
  image: {{ include "chartwire.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- $key := include "chartwire.key" . }}
  command: [install, -m, "0400", /etc/chartwire/secret/{{ $key }}, /run/chartwire/{{ $key }}]
  securityContext: {{- include "chartwire.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: secret, mountPath: /etc/chartwire/secret, readOnly: true}
    - {name: key, mountPath: /run/chartwire}
{{- end }}

{{- define "chartwire.env" -}}
{{- if eq .Values.mode "workers" -}}
{{- /* No file of settings: one that is taken over from inside would bring the database's password along. */ -}}
- {name: CHARTWIRE_ROLE, value: deliver}
- name: CHARTWIRE_NATS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.existingSecret }}, key: nats_url}}
- {name: CHARTWIRE_TRANSPORT_KEY_FILE, value: /run/chartwire/transport.key}
{{- else -}}
- {name: CHARTWIRE_CONFIG, value: /etc/chartwire/secret/chartwire.toml}
- {name: CHARTWIRE_MASTER_KEY_FILE, value: /run/chartwire/master.key}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "chartwire.mounts" -}}
- {name: key, mountPath: /run/chartwire, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if ne .Values.mode "workers" }}
- {name: secret, mountPath: /etc/chartwire/secret, readOnly: true}
- {name: data, mountPath: /var/lib/chartwire}
{{- end }}
{{- range .Values.extraSecrets }}
- {name: secret-{{ . }}, mountPath: /etc/chartwire/{{ . }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "chartwire.volumes" -}}
- name: secret
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
    {{- if eq .Values.mode "workers" }}
    items: [{key: transport.key, path: transport.key}]
    {{- end }}
- name: key
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- if eq .Values.mode "workers" }}
{{- /* It keeps nothing; TLS reads an endpoint's certificate from a file. */}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- else }}
- name: data
  emptyDir: {sizeLimit: {{ .Values.spoolSize }}}
- name: tmp
  emptyDir: {sizeLimit: 512Mi}
{{- end }}
{{- range .Values.extraSecrets }}
- name: secret-{{ . }}
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
