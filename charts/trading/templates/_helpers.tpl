{{- define "trading.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "trading.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "trading.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "trading.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Call with a dict: root, component. */}}
{{- define "trading.selector" -}}
app.kubernetes.io/name: {{ include "trading.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "trading.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "trading.selector" . }}
app.kubernetes.io/part-of: {{ .root.Values.app }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* The same without part-of, by which the operator selects what it scales. Call with a dict: root, component. */}}
{{- define "trading.labelsApart" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "trading.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* The program's subcommand. */}}
{{- define "trading.pipeline" -}}
{{- ternary "settlement" "trading" (eq .Values.app "settlement") -}}
{{- end -}}

{{- define "trading.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The restricted Pod Security Standard, and one fixed user so that mounted secrets can be group-readable. */}}
{{- define "trading.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "trading.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Configuration of one role (a stage, or the migrator). Call with a dict: root, role. */}}
{{- define "trading.env" -}}
{{- $database := printf "%s-%s" .root.Values.database.secretPrefix .role -}}
{{- $broker := printf "%s-%s" .root.Values.broker.secretPrefix .role -}}
{{- with .root.Values -}}
- {name: APP, value: {{ .app | quote }}}
- {name: REGION, value: {{ .region | quote }}}
- {name: DATABASE_HOST, value: {{ .database.host | quote }}}
- {name: DATABASE_PORT, value: {{ .database.port | quote }}}
- {name: DATABASE_NAME, value: {{ .database.name | quote }}}
- name: DATABASE_USER
  valueFrom:
    secretKeyRef: {name: {{ $database }}, key: username}
- {name: DATABASE_PASSWORD_FILE, value: /etc/trading/database/password}
- {name: DATABASE_CA_FILE, value: /etc/trading/ca/{{ .ca.key }}}
- {name: BROKER_URL, value: {{ .broker.url | quote }}}
- name: BROKER_USER
  valueFrom:
    secretKeyRef: {name: {{ $broker }}, key: username}
- {name: BROKER_PASSWORD_FILE, value: /etc/trading/broker/password}
- {name: BROKER_CA_FILE, value: /etc/trading/ca/{{ .ca.key }}}
- {name: LOG, value: {{ .logging.level | quote }}}
{{- end -}}
{{- end -}}

{{/* Where settlements flow each stage of trade matching is told, and outbound of either application reaches the other's
     broker. Call with a dict: root, role. */}}
{{- define "trading.settlementsEnv" -}}
{{- if and .root.Values.broker.peerUrl (eq (include "trading.pipeline" .root) "trading") }}
- {name: SETTLEMENTS, value: "true"}
{{- end }}
{{- if include "trading.reachesPeer" . }}
- {name: PEER_BROKER_URL, value: {{ .root.Values.broker.peerUrl | quote }}}
- name: PEER_BROKER_USER
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.broker.secretPrefix }}-peer, key: username}
- {name: PEER_BROKER_PASSWORD_FILE, value: /etc/trading/peer/password}
- {name: PEER_BROKER_CA_FILE, value: /etc/trading/ca/{{ .root.Values.ca.key }}}
{{- end }}
{{- end -}}

{{/* What core is told about days: how many the stores keep, and how many a trade waits. Call with a dict: root, role. */}}
{{- define "trading.daysEnv" -}}
{{- if and .root.Values.keepDays (eq .role "core") }}
- {name: KEEP_DAYS, value: {{ .root.Values.keepDays | quote }}}
{{- end }}
{{- if and .root.Values.expireAfterDays (eq .role "core") }}
- {name: EXPIRE_AFTER_DAYS, value: {{ .root.Values.expireAfterDays | quote }}}
{{- end }}
{{- end -}}

{{/* Whether a role reaches the other application's broker. Call with a dict: root, role. */}}
{{- define "trading.reachesPeer" -}}
{{- if and .root.Values.broker.peerUrl (eq .role "outbound") -}}yes{{- end -}}
{{- end -}}

{{/* Of everything that answers HTTP. */}}
{{- define "trading.httpProbes" -}}
ports:
  - {name: http, containerPort: 8080, protocol: TCP}
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 1
  timeoutSeconds: 1
{{- end -}}

{{- define "trading.volumeMounts" -}}
- {name: ca, mountPath: /etc/trading/ca, readOnly: true}
- {name: database, mountPath: /etc/trading/database, readOnly: true}
- {name: broker, mountPath: /etc/trading/broker, readOnly: true}
{{- if include "trading.reachesPeer" . }}
- {name: peer, mountPath: /etc/trading/peer, readOnly: true}
{{- end }}
{{- end -}}

{{/* Only the password is mounted of each secret. Call with a dict: root, role. */}}
{{- define "trading.volumes" -}}
- name: ca
  secret:
    secretName: {{ .root.Values.ca.secretName }}
    defaultMode: 0440
    items: [{key: {{ .root.Values.ca.key }}, path: {{ .root.Values.ca.key }}}]
- name: database
  secret:
    secretName: {{ .root.Values.database.secretPrefix }}-{{ .role }}
    defaultMode: 0440
    items: [{key: password, path: password}]
- name: broker
  secret:
    secretName: {{ .root.Values.broker.secretPrefix }}-{{ .role }}
    defaultMode: 0440
    items: [{key: password, path: password}]
{{- if include "trading.reachesPeer" . }}
- name: peer
  secret:
    secretName: {{ .root.Values.broker.secretPrefix }}-peer
    defaultMode: 0440
    items: [{key: password, path: password}]
{{- end }}
{{- end -}}

{{- define "trading.monitorReady" -}}
{{- if and (ne .Values.metrics.monitor "None") (.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .Values.metrics.monitor)) -}}yes{{- end -}}
{{- end -}}

{{/* Seconds between two looks of continuous reconciliation; nothing where there is none. */}}
{{- define "trading.continuous" -}}
{{- with (.Values.reconciliation).continuous -}}
{{- if .enabled -}}{{ int .every }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "trading.rulesReady" -}}
{{- if and .Values.alerts.enabled (include "trading.continuous" .) (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PrometheusRule") -}}yes{{- end -}}
{{- end -}}
