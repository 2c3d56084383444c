{{- define "lvm-iscsi-csi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Room is left for what the objects' names end with. */}}
{{- define "lvm-iscsi-csi.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- $name := include "lvm-iscsi-csi.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "lvm-iscsi-csi.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lvm-iscsi-csi.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lvm-iscsi-csi.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "lvm-iscsi-csi.selectorLabels" . }}
{{- end }}

{{/* Of an image without a tag of its own: the version that the chart was made for. */}}
{{- define "lvm-iscsi-csi.driverImage" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Where HTTP is listened on: the pods are in the host's network, so without metrics nobody else is to reach it. */}}
{{- define "lvm-iscsi-csi.listenHost" -}}
{{- if not .Values.metrics.enabled -}}
127.0.0.1
{{- else if contains ":" .Values.metrics.address -}}
[{{ .Values.metrics.address }}]
{{- else -}}
{{ .Values.metrics.address }}
{{- end -}}
{{- end }}

{{/* The program's options as flags; keys as in docs/configuration.md, empty ones are left to the program. */}}
{{- define "lvm-iscsi-csi.flags" -}}
{{- range $key, $value := . }}
{{- if kindIs "slice" $value }}
{{- $value = join "," $value }}
{{- else if kindIs "float64" $value }}
{{- $value = int64 $value }}
{{- end }}
{{- if not (has (toString $value) (list "" "<nil>")) }}
- {{ printf "--%s=%v" (kebabcase $key) $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Which host has the volume group, when nothing else says it. */}}
{{- define "lvm-iscsi-csi.storageHostLabel" -}}
lvm-iscsi-csi.github.io/storage-host
{{- end }}

{{/* Does this list name every namespace? */}}
{{- define "lvm-iscsi-csi.anyNamespace" -}}
{{- if has "*" . }}true{{ end }}
{{- end }}
