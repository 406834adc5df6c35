{{- define "modelkeep.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- define "modelkeep.selector" -}}
app.kubernetes.io/name: modelkeep
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}
{{- define "modelkeep.labels" -}}
{{ include "modelkeep.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}
