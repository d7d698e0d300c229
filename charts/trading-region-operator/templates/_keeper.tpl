{{/* A keeper without applications has nothing to renew and refuses to start, so none is made. */}}
{{- define "tro.keeperOn" -}}
{{- if and .Values.keeper.enabled .Values.keeper.apps -}}yes{{- end -}}
{{- end -}}

{{/* The file that region-keeper reads; its schema is `Config` in operator/keeper. */}}
{{- define "tro.keeperConfig" -}}
{{- $aws := dict -}}
{{- if .Values.aws.credentialsSecret.name -}}
{{- $_ := set $aws "credentialsFolder" "/etc/region-operator/aws" -}}
{{- end -}}
{{- if .Values.aws.caSecret.name -}}
{{- $_ := set $aws "caFile" "/etc/region-operator/aws-ca/ca.crt" -}}
{{- end -}}
aws: {{ toJson $aws }}
apps:
  {{- range .Values.keeper.apps }}
  - app: {{ .app }}
    region: {{ $.Values.region }}
    {{- with .period }}
    period: {{ . }}
    {{- end }}
    arc:
      control: {{ .control }}
      endpoints:
        {{- range $.Values.keeper.arcEndpoints }}
        - {region: {{ .region }}, url: {{ .url | quote }}}
        {{- end }}
    database:
      host: {{ .database.host | quote }}
      port: {{ .database.port | default 5432 }}
      name: {{ .database.name | quote }}
      user: {{ .database.user | default "region_keeper" | quote }}
      passwordFile: /etc/region-keeper-secrets/{{ .app }}/password
      caFile: /etc/region-keeper-secrets/{{ .app }}/ca.crt
  {{- end }}
{{- end -}}
