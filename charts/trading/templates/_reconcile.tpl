{{/* What the CronJob and the Deployment of reconciliation share: both read with core's database role, and replay with core's
     broker user. Call each with a dict: root, role, and to run for ever: every. */}}

{{- define "trading.reconcilePod" -}}
serviceAccountName: {{ include "trading.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "trading.podSecurityContext" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: reconcile
    image: {{ include "trading.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [services]
    args:
      - reconcile
      {{- if .every }}
      - --every={{ .every }}
      {{- else }}
      - --only-where-active
      {{- end }}
      - --since={{ .root.Values.reconciliation.since }}
      - --grace={{ .root.Values.reconciliation.graceSeconds }}
      {{- if .root.Values.reconciliation.replay }}
      - --replay
      - --by={{ include "trading.fullname" .root }}-{{ .component }}
      {{- end }}
    env:
      {{- include "trading.env" . | nindent 6 }}
      {{- with include "trading.settlementsEnv" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with include "trading.peerDatabaseEnv" .root }}
      {{- . | nindent 6 }}
      {{- end }}
    {{- if .every }}
    {{- include "trading.httpProbes" .root | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml .root.Values.reconciliation.resources | nindent 6 }}
    securityContext:
      {{- include "trading.containerSecurityContext" .root | nindent 6 }}
    volumeMounts:
      {{- include "trading.volumeMounts" . | nindent 6 }}
      {{- if (.root.Values.reconciliation.peerDatabase).host }}
      - {name: peer-database, mountPath: /etc/trading/peer-database, readOnly: true}
      {{- end }}
volumes:
  {{- include "trading.volumes" . | nindent 2 }}
  {{- if (.root.Values.reconciliation.peerDatabase).host }}
  - name: peer-database
    secret:
      secretName: {{ .root.Values.database.secretPrefix }}-peer
      defaultMode: 0440
      items: [{key: password, path: password}]
  {{- end }}
{{- end -}}

{{/* Where the other application's database is. */}}
{{- define "trading.peerDatabaseEnv" -}}
{{- with .Values.reconciliation.peerDatabase -}}
{{- if .host -}}
- {name: PEER_DATABASE_HOST, value: {{ .host | quote }}}
- {name: PEER_DATABASE_PORT, value: {{ .port | quote }}}
{{- with .name }}
- {name: PEER_DATABASE_NAME, value: {{ . | quote }}}
{{- end }}
{{- with .app }}
- {name: PEER_APP, value: {{ . | quote }}}
{{- end }}
- name: PEER_DATABASE_USER
  valueFrom:
    secretKeyRef: {name: {{ $.Values.database.secretPrefix }}-peer, key: username}
- {name: PEER_DATABASE_PASSWORD_FILE, value: /etc/trading/peer-database/password}
- {name: PEER_DATABASE_CA_FILE, value: /etc/trading/ca/{{ $.Values.ca.key }}}
{{- end -}}
{{- end -}}
{{- end -}}
