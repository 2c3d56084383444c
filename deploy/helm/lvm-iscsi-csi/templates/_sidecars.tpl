{{/*
What a sidecar has in common with all others. Call with (dict "root" $ "sidecar" .Values.sidecars.x "asRoot" false).
Those of the node run as root without a single capability: the folders of kubelet that their sockets are in are root's.
*/}}
{{- define "lvm-iscsi-csi.sidecar" -}}
{{- $sidecars := .root.Values.sidecars }}
image: {{ .sidecar.image.repository }}:{{ .sidecar.image.tag }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- if .asRoot }}
  runAsUser: 0
  runAsGroup: 0
  {{- else }}
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  {{- end }}
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
  {{- with $sidecars.seLinuxOptions }}
  # SELinux lets no confined process connect to the socket of a privileged one.
  seLinuxOptions: {{- toYaml . | nindent 4 }}
  {{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .sidecar.resources | default $sidecars.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Level 5 would log publish_context, with the attachment's password: the schema allows no more than 4. */}}
{{- define "lvm-iscsi-csi.sidecarArgs" -}}
- --csi-address=/csi/csi.sock
- --v={{ .root.Values.sidecars.verbosity | int }}
{{- range .sidecar.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* Of those that call the controller. Without leader election: see controller.yaml. */}}
{{- define "lvm-iscsi-csi.controllerSidecarArgs" -}}
{{ include "lvm-iscsi-csi.sidecarArgs" . }}
- --timeout={{ .sidecar.timeout }}
- --retry-interval-max={{ .sidecar.retryIntervalMax }}
{{- if .root.Values.metrics.enabled }}
- --http-endpoint={{ include "lvm-iscsi-csi.listenHost" .root }}:{{ .port | int }}
{{- end }}
{{- end }}

{{/*
Calls Probe through the socket, as kubelet and the other sidecars do, and is ready when that is. Never the driver's
liveness: an answer "not ready" would restart it, again and again, for a disk that is away.
Call with (dict "root" $ "asRoot" false "port" 1).
*/}}
{{- define "lvm-iscsi-csi.livenessprobe" -}}
{{- $sidecar := .root.Values.sidecars.livenessprobe }}
- name: livenessprobe
  {{- include "lvm-iscsi-csi.sidecar" (dict "root" .root "sidecar" $sidecar "asRoot" .asRoot) | nindent 2 }}
  args:
    {{- include "lvm-iscsi-csi.sidecarArgs" (dict "root" .root "sidecar" $sidecar) | nindent 4 }}
    - --http-endpoint={{ include "lvm-iscsi-csi.listenHost" .root }}:{{ .port | int }}
    # The driver itself gives a check 10 s, and then says what hangs.
    - --probe-timeout=12s
  ports:
    - {name: probe, containerPort: {{ .port | int }}}
  readinessProbe:
    httpGet: {host: 127.0.0.1, path: /healthz, port: {{ .port | int }}}
    initialDelaySeconds: 5
    periodSeconds: 30
    timeoutSeconds: 15
    failureThreshold: 2
  volumeMounts:
    - {name: socket, mountPath: /csi}
{{- end }}

{{/* Call with (dict "root" $ "name" "attacher" "port" 1). */}}
{{- define "lvm-iscsi-csi.sidecarPortAndSocket" -}}
{{- if .root.Values.metrics.enabled }}
ports:
  - {name: {{ .name }}, containerPort: {{ .port | int }}}
{{- end }}
volumeMounts:
  - {name: socket, mountPath: /csi}
{{- end }}
