{{/* The file that region-keeper reads; its schema is `Config` in operator/keeper. */}}
{{- define "tro.keeperConfig" -}}
apps:
  {{- range .Values.keeper.apps }}
  - app: {{ .app }}
    region: {{ $.Values.region }}
    control: {{ .control }}
    database:
      host: {{ .database.host }}
      port: {{ .database.port | default 5432 }}
      name: {{ .database.name }}
  {{- end }}
{{- end -}}
