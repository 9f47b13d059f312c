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
Kubernetes lets the pod's group read a Secret, and Chartwire refuses a master key that others can read: it is copied
into memory, for its owner alone.
*/}}
{{- define "chartwire.takeKey" -}}
- name: take-key
  image: {{ include "chartwire.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [install, -m, "0400", /etc/chartwire/secret/master.key, /run/chartwire/master.key]
  securityContext: {{- include "chartwire.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: secret, mountPath: /etc/chartwire/secret, readOnly: true}
    - {name: key, mountPath: /run/chartwire}
{{- end }}

{{- define "chartwire.env" -}}
- {name: CHARTWIRE_CONFIG, value: /etc/chartwire/secret/chartwire.toml}
- {name: CHARTWIRE_MASTER_KEY_FILE, value: /run/chartwire/master.key}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "chartwire.mounts" -}}
- {name: secret, mountPath: /etc/chartwire/secret, readOnly: true}
- {name: key, mountPath: /run/chartwire, readOnly: true}
- {name: data, mountPath: /var/lib/chartwire}
- {name: tmp, mountPath: /tmp}
{{- range .Values.extraSecrets }}
- {name: secret-{{ . }}, mountPath: /etc/chartwire/{{ . }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "chartwire.volumes" -}}
- name: secret
  secret: {secretName: {{ .Values.existingSecret }}, defaultMode: 0440}
- name: key
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: data
  emptyDir: {sizeLimit: {{ .Values.spoolSize }}}
- name: tmp
  emptyDir: {sizeLimit: 512Mi}
{{- range .Values.extraSecrets }}
- name: secret-{{ . }}
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
