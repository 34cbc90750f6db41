{{- /* ovsdb-server and ovs-vswitchd. What they keep is on the node, so that the
new container of an update goes on where the old one ended. */}}
{{- define "ovs-gre.openvswitch" -}}
- name: openvswitch
  image: {{ .Values.openvswitch.image.repository }}:{{ .Values.openvswitch.image.tag | default .Chart.AppVersion }}
  imagePullPolicy: {{ .Values.openvswitch.image.pullPolicy }}
  {{- if not .Values.uninstall }}
  env:
    # The network whose flows the agent puts back when this container starts anew.
    - {name: FLOW_RESTORE_NETWORK, value: {{ .Values.network.name | quote }}}
  {{- end }}
  readinessProbe:
    exec: {command: [ovs-vsctl, --timeout=5, --no-headings, --columns=_uuid, list, Open_vSwitch]}
    periodSeconds: 10
    timeoutSeconds: 6
  livenessProbe:
    exec: {command: [ovs-appctl, --timeout=10, version]}
    periodSeconds: 10
    timeoutSeconds: 11
    failureThreshold: 6
  resources:
    {{- toYaml .Values.openvswitch.resources | nindent 4 }}
  securityContext:
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
      # Its links and its datapath; the kernel's module, where it is not loaded;
      # as much memory locked as it wants.
      add: [NET_ADMIN, NET_RAW, SYS_MODULE, SYS_NICE, IPC_LOCK]
  volumeMounts:
    - {name: openvswitch, mountPath: /run/openvswitch}
    - {name: openvswitch-data, mountPath: /etc/openvswitch}
    - {name: modules, mountPath: /lib/modules, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end }}
