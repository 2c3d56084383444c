{{/*
A cluster role of one sidecar, bound to the controller's service account. Call with
(dict "root" $ "sidecar" "attacher" "rules" (include "…" .)).
*/}}
{{- define "lvm-iscsi-csi.clusterRole" -}}
{{- $name := printf "%s-%s" (include "lvm-iscsi-csi.fullname" .root) .sidecar }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels: {{- include "lvm-iscsi-csi.labels" .root | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- include "lvm-iscsi-csi.labels" .root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects: {{- include "lvm-iscsi-csi.controllerSubject" .root | nindent 2 }}
{{- end }}

{{/* The same in one namespace. Call with (dict "root" $ "sidecar" "attacher" "namespace" "x" "rules" …). */}}
{{- define "lvm-iscsi-csi.role" -}}
{{- $name := printf "%s-%s" (include "lvm-iscsi-csi.fullname" .root) .sidecar }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels: {{- include "lvm-iscsi-csi.labels" .root | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels: {{- include "lvm-iscsi-csi.labels" .root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: {{- include "lvm-iscsi-csi.controllerSubject" .root | nindent 2 }}
{{- end }}

{{- define "lvm-iscsi-csi.controllerSubject" -}}
- kind: ServiceAccount
  name: {{ include "lvm-iscsi-csi.fullname" . }}-controller
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "lvm-iscsi-csi.secretRules" -}}
- {apiGroups: [""], resources: [secrets], verbs: [get]}
{{- end }}
