{{/* Trying out without a disk: a volume group on a sparse file of the storage host. */}}
{{- define "lvm-iscsi-csi.developmentVolumeGroup" -}}
- name: development-volume-group
  image: {{ include "lvm-iscsi-csi.driverImage" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - nsenter
    - --target=1
    - --mount
    - --uts
    - --ipc
    - --net
    - --pid
    - --
    - sh
    - -c
    - |
      {{- .Files.Get "files/development-volume-group.sh" | trim | nindent 6 }}
    - development-volume-group
    - {{ .Values.controller.options.volumeGroup | default "cinder-volumes" | quote }}
    # truncate's G is Kubernetes' Gi.
    - {{ .Values.developmentMode.size | trimSuffix "i" | quote }}
    - {{ .Values.developmentMode.file | quote }}
  securityContext: {privileged: true, readOnlyRootFilesystem: true, runAsUser: 0, runAsGroup: 0, runAsNonRoot: false}
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    requests: {cpu: 10m, memory: 16Mi}
{{- end }}
