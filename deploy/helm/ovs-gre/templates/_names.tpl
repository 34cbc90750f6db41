{{- define "ovs-gre.labels" -}}
app.kubernetes.io/name: ovs-gre
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "ovs-gre.selector" -}}
app.kubernetes.io/name: ovs-gre
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ovs-gre.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The conflist without the hosts: the agent adds them. */}}
{{- define "ovs-gre.conflist" -}}
{{- $n := .Values.network }}
{{- $ipam := dict "type" "host-local" }}
{{- if ne .Values.paths.cniState "/var/lib/cni" }}{{ $_ := set $ipam "dataDir" (printf "%s/networks" .Values.paths.cniState) }}{{ end }}
{{- $main := dict "type" "ovs-gre" "segment" "container" "bridge" $n.bridge "tunnel" $n.tunnel "ipMasq" $n.ipMasq
  "ipam" $ipam "capabilities" (dict "ips" true "mac" true) }}
{{- if $n.mtu }}{{ $_ := set $main "mtu" (int $n.mtu) }}{{ end }}
{{- if $n.noMasqueradeCIDRs }}{{ $_ := set $main "noMasqueradeCIDRs" $n.noMasqueradeCIDRs }}{{ end }}
{{- if $n.datapathType }}{{ $_ := set $main "datapathType" $n.datapathType }}{{ end }}
{{- if not $n.spoofchk }}{{ $_ := set $main "spoofchk" false }}{{ end }}
{{- if ne .Values.paths.openvswitch "/run/openvswitch" }}{{ $_ := set $main "ovsdb" (printf "unix:%s/db.sock" .Values.paths.openvswitch) }}{{ end }}
{{- $plugins := list $main (dict "type" "route-sync" "mode" $n.mode) }}
{{- if .Values.portmap.enabled }}
{{- $plugins = append $plugins (dict "type" "portmap" "capabilities" (dict "portMappings" true)) }}
{{- end }}
{{- if .Values.bandwidth.enabled }}
{{- $plugins = append $plugins (dict "type" "bandwidth" "capabilities" (dict "bandwidth" true)) }}
{{- end }}
{{- $list := dict "name" $n.name "plugins" $plugins }}
{{- if .Values.cniVersion }}{{ $_ := set $list "cniVersion" .Values.cniVersion }}{{ end }}
{{- toPrettyJson $list }}
{{- end }}
