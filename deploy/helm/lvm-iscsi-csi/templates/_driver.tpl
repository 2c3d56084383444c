{{/*
The container with the program, for both roles. Call with (dict "root" $ "role" "node" "settings" .Values.node "port" 1).
Privileged with the host's PID namespace: LVM, dmsetup, iscsiadm and mount are the host's own, entered by nsenter, and the
host's files are seen under /proc/1/root; so the image needs no tools, and its root can be read-only. Of the host's folders
the node plugin is given the socket's alone, the controller also those in which the kernel itself looks for a path.
*/}}
{{- define "lvm-iscsi-csi.driver" -}}
{{- $root := .root }}
{{- $port := .port | int }}
- name: driver
  image: {{ include "lvm-iscsi-csi.driverImage" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - {{ .role }}
    - --endpoint=unix:///csi/csi.sock
    - --driver-name={{ $root.Values.driverName }}
    - --host-commands=nsenter
    - --metrics-endpoint={{ include "lvm-iscsi-csi.listenHost" $root }}:{{ $port }}
    - --drain-timeout={{ $root.Values.drainTimeoutSeconds | int }}s
    {{- if eq .role "node" }}
    - --node-name=$(NODE_NAME)
    {{- else if not .settings.options.portals }}
    - --portals=$(HOST_IP)
    {{- end }}
    {{- include "lvm-iscsi-csi.flags" $root.Values.options | nindent 4 }}
    {{- include "lvm-iscsi-csi.flags" .settings.options | nindent 4 }}
  env:
    {{- if eq .role "node" }}
    - name: NODE_NAME
      valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
    {{- else }}
    # Named by a second controller that waits for this one's lock.
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    - name: HOST_IP
      valueFrom: {fieldRef: {fieldPath: status.hostIP}}
    {{- end }}
  ports:
    - {name: http, containerPort: {{ $port }}}
  securityContext:
    privileged: true
    readOnlyRootFilesystem: true
    runAsUser: 0
    runAsGroup: 0
    runAsNonRoot: false
  # The event loop answers, and nothing more: a storage problem is no reason to restart the driver.
  livenessProbe:
    httpGet: {host: 127.0.0.1, path: /healthz, port: {{ $port }}}
    periodSeconds: 30
    timeoutSeconds: 15
    failureThreshold: 4
  # A tenth of a second on most machines. A host that is busy with its own start is given five minutes.
  startupProbe:
    httpGet: {host: 127.0.0.1, path: /healthz, port: {{ $port }}}
    periodSeconds: 5
    timeoutSeconds: 15
    failureThreshold: 60
  # The answer of CSI's Probe. Not by httpGet, whose event would say "statuscode: 503" in place of the reasons.
  readinessProbe:
    exec:
      command:
        - bash
        - -c
        - |
          {{- $root.Files.Get "files/ready.sh" | trim | nindent 10 }}
        - {{ $port | quote }}
    periodSeconds: 30
    timeoutSeconds: 30
    failureThreshold: 2
  # So that "kubectl describe pod" shows why an option was refused.
  terminationMessagePolicy: FallbackToLogsOnError
  {{- if eq .role "controller" }}
  # Not the default, in /dev: that is the host's here, and a file would be left in it.
  terminationMessagePath: /termination-log
  {{- end }}
  {{- with .settings.resources }}
  resources: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
    {{- if eq .role "controller" }}
    # LIO opens a gate by its path in the mount namespace of who asks for it: this container's, whose own /dev is a copy
    # of its start, without the links that LVM and device-mapper make later.
    - {name: dev, mountPath: /dev}
    # A container's own sysfs has no configfs in it. One that the host mounts later appears here as well.
    - {name: configfs, mountPath: /sys/kernel/config, mountPropagation: HostToContainer}
    {{- end }}
{{- end }}
