{{- define "tro.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tro.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "tro.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tro.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Call with a dict: root, component. */}}
{{- define "tro.selector" -}}
app.kubernetes.io/name: {{ include "tro.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tro.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "tro.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "tro.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The restricted Pod Security Standard, and one fixed user so that mounted secrets can be group-readable. */}}
{{- define "tro.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tro.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Both processes serve health and metrics on the same port. */}}
{{- define "tro.probes" -}}
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
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}

{{/* Replicas on different nodes and zones where the cluster has them. */}}
{{- define "tro.spread" -}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "tro.selector" . | nindent 14 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tro.selector" . | nindent 8 }}
{{- end -}}

{{/* REGION=URL,REGION=URL from a map; Helm walks maps in the order of their keys. */}}
{{- define "tro.rdsEndpoints" -}}
{{- $pairs := list -}}
{{- range $region, $url := . -}}
{{- $pairs = append $pairs (printf "%s=%s" $region $url) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* Static credentials and a private CA of AWS, as files; both processes mount them at the same place. */}}
{{- define "tro.awsVolumeMounts" -}}
{{- if .Values.aws.credentialsSecret.name }}
- {name: aws-credentials, mountPath: /etc/region-operator/aws, readOnly: true}
{{- end }}
{{- if .Values.aws.caSecret.name }}
- {name: aws-ca, mountPath: /etc/region-operator/aws-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "tro.awsVolumes" -}}
{{- with .Values.aws.credentialsSecret }}
{{- if .name }}
- name: aws-credentials
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - {key: {{ .accessKeyIdKey }}, path: access-key-id}
      - {key: {{ .secretAccessKeyKey }}, path: secret-access-key}
{{- end }}
{{- end }}
{{- with .Values.aws.caSecret }}
{{- if .name }}
- name: aws-ca
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{- define "tro.monitorReady" -}}
{{- if and (ne .Values.metrics.monitor "None") (.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .Values.metrics.monitor)) -}}yes{{- end -}}
{{- end -}}

{{- define "tro.rulesReady" -}}
{{- if and .Values.alerts.enabled (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PrometheusRule") -}}yes{{- end -}}
{{- end -}}
